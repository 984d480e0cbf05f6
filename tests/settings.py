"""Settings that several tests of the run config begin with."""

CIFAR = {"data.dataset": "cifar100", "data.grouping": "superclass"}
CUB = {"data.dataset": "cub", "data.grouping": "seed"}
OXFORD = {"data.dataset": "oxford102", "data.grouping": "seed"}
DEVICES = {"data.partitioner": "iid", "data.devices-per-group": 3}
WATCH = {"data.dataset": "watch", "data.grouping": "subjects"}
DISTIL = {**WATCH, "strategy.name": "distil", "model.name": "wrn-16-1"}
JOINER = {"strategy.name": "late-joiner", "strategy.joiner-starts": "donor"}

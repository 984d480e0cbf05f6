"""Dealing the training items of one class group to several devices, by the partitioners of flwr-datasets.

``iid`` deals at random, ``dirichlet`` deals each class in shares drawn from Dir(α) (Yurochkin et al., ICML 2019; Hsu et al.,
2019), ``pathological`` gives a device only some classes (McMahan et al., AISTATS 2017), and ``domain`` gives each device one
domain, in the order of their names.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from config import Data
from data_partition.files import DataError

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

SMALLEST: Final = 1
"""Fewest items that a device of ``dirichlet`` may get; shares are drawn again until each has that many."""


def deal(data: Data, labels: Sequence[str], domains: Sequence[str]) -> NDArray[np.int64]:
    """Return the device of each item, int64 (n,), 0 to ``data.devices_per_group`` - 1.

    With fewer devices than classes ``pathological`` may leave a class to nobody: its items have the device -1.

    Args:
        data: names the partitioner, the number of devices and the seed.
        labels: class of each item; items are dealt in this order, which should be a random one.
        domains: domain of each item; used by ``domain`` alone.

    Raises:
        DataError: flwr-datasets is not installed, or there are too few items, classes or domains for the devices.
    """
    if data.partitioner == "one":
        return np.zeros(len(labels), dtype=np.int64)
    number = data.devices_per_group
    found = sorted(set(domains if data.partitioner == "domain" else labels))
    if data.partitioner == "domain" and (len(found) != number or "" in found):
        raise DataError(
            f"data.partitioner = 'domain' with data.devices-per-group = {number} needs as many domains, found {len(found)}: "
            f"{', '.join(repr(name) for name in found[:20])}."
        )
    if len(labels) < number:
        raise DataError(f"{len(labels)} training items cannot be dealt to {number} devices: lower data.devices-per-group.")
    try:
        from datasets import Dataset
    except ImportError:
        raise _not_installed(data.partitioner) from None
    partitioner = _partitioner(data)
    codes = np.unique(np.array(labels), return_inverse=True)[1]
    partitioner.dataset = Dataset.from_dict({"item": np.arange(len(labels)), "label": codes, "domain": list(domains)})
    devices = np.full(len(labels), -1, dtype=np.int64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about shares that are drawn again, and classes that nobody has
            for device in range(number):
                devices[np.asarray(partitioner.load_partition(device)["item"], dtype=np.int64)] = device
    except ValueError as error:
        raise DataError(f"data.partitioner = '{data.partitioner}' cannot deal {len(labels)} items: {error}") from None
    return devices


def _partitioner(data: Data) -> Partitioner:
    try:
        from flwr_datasets import partitioner as kinds
    except ImportError:
        raise _not_installed(data.partitioner) from None
    number, seed = data.devices_per_group, data.seed
    if data.partitioner == "domain":
        return kinds.NaturalIdPartitioner("domain")
    if data.partitioner == "iid":
        return kinds.IidPartitioner(number)
    if data.partitioner == "dirichlet":
        return kinds.DirichletPartitioner(number, "label", data.alpha, SMALLEST, self_balancing=False, seed=seed)
    return kinds.PathologicalPartitioner(number, "label", data.classes_per_device, "first-deterministic", seed=seed)


def _not_installed(name: str) -> DataError:
    return DataError(
        f"data.partitioner = '{name}' needs flwr-datasets, which is not installed: pip install -e '.[data]', or set "
        "data.partitioner = 'one'."
    )

"""Clients of Back-Pack that answer from tables, so that a whole run of the strategy takes milliseconds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np
from flwr.app import ConfigRecord, Message

from config import parse
from strategies import backpack
from strategies.job import Job, Position
from strategies.protocol import ARRAYS, CONFIG, DONORS, FACTS, MANIFEST, METRICS, NONE, SCORERS, Manifest, digest
from strategies.selection.sketches import SHAPES
from tests.fakes import client, error, good, mailbox

IMAGES, TEXTS = (0, 1, 2, 3), (4, 5)
EVERYONE = [client(i, "image" if i in IMAGES else "text") for i in (*IMAGES, *TEXTS)]
BASE = {
    "strategy.name": "backpack",
    "strategy.share": "backbone+adapter",
    "strategy.scope": "modality",
    "run.evaluate-every": 0,
    "selection.abstain": False,
}


class Memory:
    """Progress that can be asked again, as on disk."""

    def __init__(self):
        self.saved = {}

    def begin(self, arm):
        return self.saved.get(arm, Position())

    def save(self, arm, server_round, arrays):
        self.saved[arm] = Position(server_round, dict(arrays))

    def finish(self, arm):
        self.saved[arm] = dataclasses.replace(self.begin(arm), finished=True)


class World:
    """A job, its clients, and what was recorded and sent.

    Attributes:
        scores: by (target, donor); what is not there is 0.5. Of every scorer but the short training.
        short: of the short training, by (target, donor); without a donor: (target, None).
        reached: test accuracy by (target, donor); without a donor: (target, None).
        sketch: the direction of each client's model.
        fails: says whether a client dies of a message.
        refuses: says whether a target cannot use a donor in a message.
        alike: donors whose backbones are those of another one, by donor.
        twice: how often a target was sent a backbone that it held.
    """

    def __init__(self, clients=EVERYONE, **flat):
        self.events, self.sent, self.progress = [], [], Memory()
        self.scores, self.short, self.reached, self.sketch = {}, {}, {}, {}
        self.fails: Callable[[str, dict], bool] = lambda kind, told: False
        self.refuses: Callable[[str, int, int], bool] = lambda kind, target, donor: False
        self.lies: Callable[[int, dict], dict] = lambda donor, fields: fields
        self.kept: dict[int, set[str]] = {one.partition_id: set() for one in clients}
        self.alike: dict[int, int] = {}
        self.twice = 0
        self.learned: dict[tuple[int, str], list[int]] = {}
        config = parse({**BASE, **flat})
        box = mailbox(self.answer, self.record)
        box.clients = {one.partition_id: one for one in clients}
        box.nodes = {one: 11 + one for one in box.clients}
        self.clients = box.clients
        self.job = Job(config, "run", "token", box, lambda one, share: {"backbone.w": np.zeros(4, np.float32)}, self.progress)

    def go(self):
        backpack.run(self.job)
        return self

    def record(self, event, **fields):
        self.events.append({"event": event, **fields})

    def of(self, kind: str, **wanted) -> list[dict]:
        return [e for e in self.events if e["event"] == kind and all(e.get(key) == value for key, value in wanted.items())]

    def chosen(self) -> dict[int, list[int]]:
        return {event["client"]: event["chosen"] for event in self.of("routing")}

    def routed(self) -> dict[int, list[int]]:
        return {event["client"]: event["donors"] for event in self.of("routed")}

    def asked(self, kind: str) -> Counter[int]:
        return Counter(m.content[CONFIG]["partition_id"] for m in self.sent if m.metadata.message_type == kind)

    def answer(self, message: Message) -> Message:
        told, kind = dict(message.content[CONFIG]), message.metadata.message_type
        own, arm = told["partition_id"], told["arm"]
        self.sent.append(message)
        if self.fails(kind, told):
            return error(message, "OSError: gone")
        donors = self.receive(message, own)
        for donor in donors:
            if donor < 0 or self.refuses(kind, own, donor):
                reply = good(message, **{"partition-id": own})
                reply.content[FACTS] = ConfigRecord({"reason": "cannot be used", "donor": abs(donor)})
                return reply
        if kind == "train.task":
            self.learned[own, arm] = donors
            return good(message, **{"partition-id": own, "loss": 1.0, "validation": 0.5})
        if kind == "evaluate.tasks":
            first = (self.learned[own, arm] or [None])[0]
            reply = good(message, **{"partition-id": own})
            reply.content[METRICS]["tasks"] = [0]
            reply.content[METRICS]["balanced-accuracy"] = [self.reached.get((own, first), 0.5)]
            return reply
        if kind == "query.sketch":
            values = np.zeros(SHAPES["weights"], np.float16)
            angle = self.sketch.get(own, 0.0)
            values[:, 0], values[:, 1] = np.cos(angle), np.sin(angle)
            return good(message, {"sketch": values}, **{"partition-id": own})
        if kind == "query.score":
            (donor,) = donors
            return good(message, **{"partition-id": own, **self.told(own, donor, message.content[SCORERS]["names"])})
        assert kind == "query.backbone"
        arrays = {"backbone.w": np.full(4, self.alike.get(own, own), np.float32), "mask/backbone.w": np.full(1, 255, np.uint8)}
        one = self.clients[own]
        manifest = Manifest(own, one.modality, one.classes, 0.5, 9, digest(arrays))
        reply = good(message, arrays, **{"partition-id": own})
        fields = self.lies(own, dataclasses.asdict(manifest))
        reply.content[MANIFEST] = ConfigRecord({"json": Manifest(**fields).to_json()})
        return reply

    def receive(self, message: Message, own: int) -> list[int]:
        """Keep the donors in a message; one that is neither in it nor kept comes with a minus sign."""
        if DONORS not in message.content:
            return []
        came = {name.removeprefix(f"{DONORS}-") for name in message.content.array_records if name != ARRAYS}
        self.twice += len(came & self.kept[own])
        found = []
        for line in message.content[DONORS]["manifests"]:
            manifest = Manifest.from_json(line)
            here = manifest.sha256 in came | self.kept[own]
            found.append(manifest.partition_id if here else -manifest.partition_id)
            if here and not self.refuses(message.metadata.message_type, own, manifest.partition_id):
                self.kept[own].add(manifest.sha256)
            else:
                self.kept[own].discard(manifest.sha256)
                break
        return found

    def told(self, own: int, donor: int, names: list[str]) -> dict[str, float]:
        table = {"few-step": self.short.get((own, donor), 0.5), NONE: self.short.get((own, None), 0.0)}
        return {name: table.get(name, self.scores.get((own, donor), 0.5)) for name in names}


def world(**settings) -> World:
    """Return the world of some settings of selection."""
    return World(**{f"selection.{key.replace('_', '-')}": value for key, value in settings.items()})


def orders(run: World) -> dict[int, list[int]]:
    """Return each target's donors, the best first."""
    return {event["client"]: [donor for donor, _ in event["ranking"]] for event in run.of("routing")}


def scored(run: World, target: int) -> int:
    """Return how often a target was asked for scores."""
    return run.asked("query.score")[target]

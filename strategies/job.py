"""What every strategy is given, and the few steps that all of them share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, Message

from config import RunConfig
from strategies.mailbox import Mailbox, Reply
from strategies.protocol import (
    EVALUATE,
    EVALUATE_TASKS,
    FACTS,
    METRICS,
    SOURCE_HASH,
    ClientInfo,
    Instruction,
    message_to,
    to_arrays,
)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Position:
    """How far an arm has come.

    Attributes:
        rounds_done: rounds that need not be done again.
        arrays: what the arm saved after the last of them.
        finished: nothing is left to do, the evaluation included.
    """

    rounds_done: int = 0
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    finished: bool = False


class Progress(Protocol):
    """Remembers on disk how far each arm of the run has come."""

    def begin(self, arm: str) -> Position:
        """Return where to go on."""

    def save(self, arm: str, server_round: int, arrays: Arrays) -> None:
        """Remember that a round of an arm is done."""

    def finish(self, arm: str) -> None:
        """Remember that an arm is done."""


@dataclass(frozen=True)
class Job:
    """One run as a strategy sees it.

    Attributes:
        config: all settings.
        run_name: name of the run folder and of the clients' state.
        run_token: tells this run from an earlier one of the same name.
        mailbox: the clients.
        initial: the tensors that a client's freshly seeded model would share, by (client, parameter groups).
        progress: what is already done.
    """

    config: RunConfig
    run_name: str
    run_token: str
    mailbox: Mailbox
    initial: Callable[[ClientInfo, str], dict[str, np.ndarray]]
    progress: Progress

    def instruction(self, client: ClientInfo, arm: str, **fields: object) -> Instruction:
        """Return an instruction with the settings of the run filled in."""
        told: dict[str, object] = {
            "partition_id": client.partition_id,
            "run_name": self.run_name,
            "run_token": self.run_token,
            "arm": arm,
            "source_hash": SOURCE_HASH,
            "total_rounds": self.config.run.rounds,
            "epochs": self.config.train.epochs,
        }
        return Instruction(**(told | fields))  # type: ignore[arg-type]

    def wire(self, arrays: Arrays) -> ArrayRecord:
        """Wrap arrays in the dtype of the wire; do it once for all clients that get them."""
        return to_arrays({name: value.astype(self.config.strategy.wire_dtype) for name, value in arrays.items()})

    def message(self, message_type: str, instruction: Instruction, arrays: ArrayRecord | None) -> Message:
        """Address one message."""
        return message_to(self.mailbox.nodes[instruction.partition_id], message_type, instruction, arrays)

    def evaluate(self, messages: Iterable[Message], after: int | None = None) -> list[Reply]:
        """Send ``evaluate`` messages and record one ``evaluate`` event per valid reply.

        Args:
            messages: at most one per client.
            after: number of tasks learned so far; the events carry it and the task of the instruction. None: no stream.
        """
        asked = list(messages)
        replies = self.mailbox.ask(asked, lambda client: {})
        for reply in replies:
            told = next(m.content["config"] for m in asked if m.content["config"]["partition_id"] == reply.client.partition_id)
            self.mailbox.record(
                "evaluate",
                arm=told["arm"],
                round=told["round"],
                client=reply.client.partition_id,
                split=told["split"],
                **({} if after is None else {"task": told["task"], "after": after}),
                **_named(reply.metrics),
            )
        return replies

    def evaluate_tasks(self, instructions: Iterable[Instruction], after: int | None = None) -> list[Reply]:
        """Have every task evaluated that clients have learned; record one ``evaluate`` event for each task and client.

        Args:
            instructions: at most one per client.
            after: number of tasks learned so far; None: no stream.
        """
        asked = {told.partition_id: told for told in instructions}
        messages = [self.message(EVALUATE_TASKS, told, None) for told in asked.values()]
        replies = self.mailbox.ask(messages, lambda client: {})
        for reply in replies:
            told = asked[reply.client.partition_id]
            metrics = _named(reply.message.content.metric_records[METRICS])
            lists = {name: metrics.pop(name) for name in list(metrics) if isinstance(metrics[name], list)}
            for index, task in enumerate(lists.pop("tasks")):
                own = {name.replace("examples", "num_examples"): values[index] for name, values in lists.items()}
                self.mailbox.record(
                    "evaluate",
                    arm=told.arm,
                    round=told.round,
                    client=reply.client.partition_id,
                    split=told.split,
                    **({} if after is None else {"task": task, "after": after}),
                    **metrics | own,
                )
        return replies

    def evaluate_local(self, clients: Iterable[ClientInfo], arm: str, server_round: int, split: str) -> list[Reply]:
        """Evaluate each client's own model of an arm, as it lies on the client's disk."""
        instructions = [self.instruction(client, arm, round=server_round, split=split) for client in clients]
        return self.evaluate([self.message(EVALUATE, instruction, None) for instruction in instructions])

    def record_training(self, replies: list[Reply], arm: str, server_round: int, rounds: int | None = None) -> None:
        """Record one ``train`` event per reply and one ``round`` event; ``rounds``: of the arm, None: of the run."""
        for reply in replies:
            client = reply.client.partition_id
            self.mailbox.record("train", arm=arm, round=server_round, client=client, **_named(reply.metrics))
        losses = [reply.metrics["loss"] for reply in replies]
        self.mailbox.record(
            "round",
            arm=arm,
            round=server_round,
            rounds=rounds or self.config.run.rounds,
            clients=len(replies),
            loss=sum(losses) / len(losses),
        )

    def record_learned(self, replies: Iterable[Reply], arm: str, number: int) -> None:
        """Record that clients learned a task: a ``learn`` event each, and what they say of the task.

        That are ``continual`` events for the states it went through, and ``continual-note`` for the rest.
        """
        for reply in replies:
            client = reply.client.partition_id
            self.mailbox.record("learn", arm=arm, round=number, client=client, **_named(reply.metrics))
            record = reply.message.content.config_records.get(FACTS)
            for line in record["lines"] if record else ():  # type: ignore[union-attr]
                fields = json.loads(str(line))
                fact, named = fields.pop("fact"), {"arm": arm, "client": reply.client.partition_id}
                if fact.startswith("pack-"):
                    self.mailbox.record(fact, **named, **fields)
                elif "width" in fields or "loss" in fields:
                    self.mailbox.record("continual", **named, **{"state": fact, **fields})
                else:
                    self.mailbox.record("continual-note", **named, note=fact, **fields)

    def record_told(self, reply: Reply, arm: str) -> None:
        """Record the facts in a reply, one event each, under their own names."""
        record = reply.message.content.config_records.get(FACTS)
        for line in record["lines"] if record else ():  # type: ignore[union-attr]
            fields = json.loads(str(line))
            self.mailbox.record(fields.pop("fact"), arm=arm, client=reply.client.partition_id, **fields)

    def evaluation_due(self, server_round: int) -> bool:
        """Say whether the validation split is looked at after this round."""
        every = self.config.run.evaluate_every
        return every > 0 and server_round % every == 0


def _named(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in metrics.items() if name != "partition-id"}

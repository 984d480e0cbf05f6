"""Ask clients, match their replies, wait no longer than allowed, and refuse bad answers.

Every strategy talks to clients through one :class:`Mailbox`. It keeps the byte ledger (one ``message`` event per message) and
counts valid replies, so that a strategy never sees a broken one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from strategies.protocol import (
    ARRAYS,
    COLUMNS,
    CONFIG,
    DESCRIBE,
    METRICS,
    MIXING_MATRIX,
    SOURCE_HASH,
    ClientInfo,
    RunError,
    from_arrays,
)
from strategies.wire_size import WireSize, wire_size

Record = Callable[..., None]
Shapes = Mapping[str, tuple[int, ...]]
FIRST_POLL, LONGEST_POLL = 0.005, 0.25
LONGEST_REASON = 1500
DEPLOYED = re.compile(r"<class '([\w.]+)'>:<'(.*)'>", re.DOTALL)  # how Flower writes an exception of a remote client
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")


@dataclass(frozen=True)
class Reply:
    """A valid answer of one client.

    Attributes:
        client: who answered.
        arrays: its shared tensors by name; empty if none were asked for.
        metrics: its metrics; always with ``num-examples``.
        message: the Flower message itself.
    """

    client: ClientInfo
    arrays: dict[str, np.ndarray]
    metrics: dict[str, float]
    message: Message


class Mailbox:
    """The clients of one run, and the only way to talk to them.

    Args:
        grid: Flower's grid, or ours.
        clients: every client and the node that hosts it.
        record: takes an event name and its fields.
        min_replies: valid replies a request needs; 0: all that were asked.
        reply_timeout: seconds to wait for the replies of one request.
    """

    def __init__(
        self,
        grid: Grid,
        clients: Mapping[ClientInfo, int],
        record: Record,
        min_replies: int = 0,
        reply_timeout: float = 3600.0,
    ) -> None:
        self.grid = grid
        self.nodes = {client.partition_id: node for client, node in clients.items()}
        self.clients = {client.partition_id: client for client in sorted(clients, key=lambda c: c.partition_id)}
        self.record = record
        self.min_replies = min_replies
        self.reply_timeout = reply_timeout

    def ask(
        self, messages: Iterable[Message], expected: Callable[[ClientInfo], Shapes], *, may_fail: bool = False
    ) -> list[Reply]:
        """Send messages and return the valid replies, by ascending partition id.

        Args:
            messages: instructions, at most one per client.
            expected: names and shapes of the arrays a client must answer with.
            may_fail: return what there is, if it is nothing, whatever ``min_replies`` says.

        Raises:
            RunError: fewer valid replies than ``min_replies``; names each failed client and its reason.
        """
        asked = list(messages)
        if not asked:
            return []
        replies: list[Reply] = []
        refused: dict[int, str] = {}
        for message, answer, seconds in self._exchange(asked):
            told = message.content[CONFIG]
            client = self.clients[_integer(told, "partition-id")]
            reason = _fault(answer, expected(client))
            self._record_bytes(message, answer, client, seconds, reason)
            if reason or answer is None:
                refused[client.partition_id] = reason
                continue
            arrays = from_arrays(answer.content[ARRAYS]) if ARRAYS in answer.content else {}  # type: ignore[arg-type]
            metrics = {name: value for name, value in answer.content[METRICS].items() if isinstance(value, (int, float))}
            replies.append(Reply(client, arrays, metrics, answer))
        needed = self.min_replies or len(asked)
        if not may_fail and (len(replies) < min(needed, len(asked)) or not replies):
            reasons = "".join(f"\n  client {partition}: {reason}" for partition, reason in sorted(refused.items()))
            told = asked[0].content[CONFIG]
            what = f"{asked[0].metadata.message_type}, arm {told['arm']!s}, round {told['round']!s}"
            raise RunError(
                f"{what}: {len(replies)} valid replies of {len(asked)} asked, "
                f"run.min-replies needs {needed if self.min_replies else 'all'}{reasons}"
            )
        return sorted(replies, key=lambda reply: reply.client.partition_id)

    def _exchange(self, messages: list[Message]) -> list[tuple[Message, Message | None, float]]:
        """Send, then wait; return each message with its answer (None: no answer in time), in the order of ``messages``.

        Messages are pushed one by one and matched by their id: an error reply of the SuperLink names the wrong node, and a
        refused push leaves no id behind.
        """
        start = time.monotonic()
        ids: list[str] = []
        for message in messages:
            pushed = [message_id for message_id in self.grid.push_messages([message]) if message_id]
            ids.append(pushed[0] if pushed else "")
        answers: dict[str, tuple[Message, float]] = {}
        pending = {message_id for message_id in ids if message_id}
        pause = FIRST_POLL
        while pending and time.monotonic() - start < self.reply_timeout:
            arrived = list(self.grid.pull_messages(pending))
            for answer in arrived:
                answers[answer.metadata.reply_to_message_id] = (answer, time.monotonic() - start)
            pending -= answers.keys()
            if pending:
                pause = FIRST_POLL if arrived else min(pause * 1.5, LONGEST_POLL)
                time.sleep(pause)
        return [
            (message, *answers.get(message_id, (None, time.monotonic() - start)))
            for message, message_id in zip(messages, ids, strict=True)
        ]

    def _record_bytes(self, sent: Message, answer: Message | None, client: ClientInfo, seconds: float, fault: str) -> None:
        down = wire_size(sent.content)
        up = wire_size(answer.content) if answer is not None and answer.has_content() else WireSize()
        told = sent.content[CONFIG]
        fields = {"arm": told["arm"], "round": told["round"], "client": client.partition_id}
        self.record(
            "message",
            type=sent.metadata.message_type,
            **fields,
            parameters_down=down.parameters,
            bytes_down=down.payload,
            framing_down=down.framing,
            parameters_up=up.parameters,
            bytes_up=up.payload,
            framing_up=up.framing,
            seconds=seconds,
        )
        if fault:
            self.record("refused", type=sent.metadata.message_type, **fields, reason=fault)


def connect(grid: Grid, partition_ids: Iterable[int], timeout: float) -> dict[ClientInfo, int]:
    """Wait until every wanted client is hosted by a connected node; what other nodes say does not matter then.

    Returns:
        Each client with the id of the node that hosts it.

    Raises:
        RunError: a client refuses (other source, no data, no GPU), or some are missing after ``timeout`` seconds.
    """
    wanted = sorted(partition_ids)
    found: dict[int, tuple[ClientInfo, int]] = {}
    seen: set[int] = set()
    faults: list[str] = []
    start = time.monotonic()
    pending: dict[str, int] = {}
    pause = FIRST_POLL
    while time.monotonic() - start < timeout:
        for node in sorted(set(grid.get_node_ids()) - seen):
            seen.add(node)
            question = ConfigRecord({"source_hash": SOURCE_HASH, "partition_ids": wanted})
            for message_id in grid.push_messages([Message(RecordDict({CONFIG: question}), node, DESCRIBE)]):
                pending[message_id] = node
        for answer in list(grid.pull_messages(pending)) if pending else []:
            node = pending.pop(answer.metadata.reply_to_message_id)
            if answer.has_error():
                faults.append(exception_in(answer.error.reason))
                continue
            for line in answer.content[CONFIG]["clients"]:  # type: ignore[union-attr]
                client = ClientInfo.from_json(str(line))
                if client.partition_id in wanted:
                    found.setdefault(client.partition_id, (client, node))
        if len(found) == len(wanted):
            return {found[partition][0]: found[partition][1] for partition in wanted}
        if faults and not pending:
            break
        pause = min(pause * 1.5, LONGEST_POLL)
        time.sleep(pause)
    if faults:
        raise RunError(f"a client cannot take part: {faults[0]}")
    missing = [partition for partition in wanted if partition not in found]
    raise RunError(
        f"{len(seen)} nodes connected in {timeout:.0f} s; clients {missing} of {wanted} are hosted by none of them. "
        "Start their SuperNodes, or name the clients that take part with data.clients, or wait longer with run.node-timeout"
    )


def exception_in(reason: str | None) -> str:
    """Shorten a remote traceback to the exception at its end, with all lines of its message."""
    text = (reason or "").strip()
    if wrapped := DEPLOYED.fullmatch(text):
        _, inner, told = wrapped[2].partition(" occurred. Message: ")
        text = told if inner else f"{wrapped[1].rpartition('.')[2]}: {wrapped[2]}"
    lines = [line.rstrip() for line in text.replace("\\n", "\n").splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if EXCEPTION.match(line)]
    shown = lines[starts[-1] :] if starts else lines[-1:] or ["no reason given"]
    return "\n".join(shown)[:LONGEST_REASON]


def _fault(answer: Message | None, expected: Shapes) -> str:
    """Say what is wrong with an answer; empty: nothing."""
    if answer is None:
        return "no reply in time"
    if answer.has_error():
        return exception_in(answer.error.reason)
    content = answer.content
    if METRICS not in content:
        return f"the reply has no record '{METRICS}', only {sorted(content)}"
    examples = content[METRICS].get("num-examples", 0)
    if not isinstance(examples, (int, float)) or not examples > 0:
        return f"the reply counts {examples!r} examples, expected at least 1"
    arrays = dict(content.array_records[ARRAYS]) if ARRAYS in content.array_records else {}
    if set(arrays) != set(expected):
        extra, missing = sorted(set(arrays) - set(expected)), sorted(set(expected) - set(arrays))
        return f"the reply's arrays differ from those asked for: not asked for {extra[:3]}, missing {missing[:3]}"
    for name, array in arrays.items():
        if tuple(array.shape) != tuple(expected[name]):
            return f"{name} has shape {tuple(array.shape)}, expected {tuple(expected[name])}"
        if not np.isfinite(array.numpy()).all():
            return f"{name} has values that are not finite"
    if COLUMNS in content[METRICS] and MIXING_MATRIX in expected:
        columns, count = content[METRICS][COLUMNS], expected[MIXING_MATRIX][-1]
        if not isinstance(columns, list) or not columns or not set(columns) <= set(range(count)):
            return f"the reply kept the columns {columns!r}, expected some of 0 to {count - 1}"
    return ""


def _integer(record: object, key: str) -> int:
    return int(record[key.replace("-", "_")])  # type: ignore[index]

"""A grid that answers from a function, and the clients that go with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from simulations.inprocess import SERVER_NODE, _identify
from strategies.mailbox import Mailbox
from strategies.protocol import ARRAYS, METRICS, SOURCE_HASH, ClientInfo, Instruction, message_to, to_arrays

Answer = Callable[[Message], Message | None]


class FakeGrid(Grid):
    """Answers each message with ``answer(message)``; None never answers."""

    def __init__(self, answer: Answer, nodes: Iterable[int] = (11, 12, 13), refuse: Iterable[int] = ()) -> None:
        _identify(SERVER_NODE)
        self.answer, self.nodes, self.refuse = answer, list(nodes), set(refuse)
        self.replies: dict[str, Message] = {}
        self.sent: list[Message] = []

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        ids = []
        for message in messages:
            if message.metadata.dst_node_id in self.refuse:
                continue
            self.sent.append(message)
            message_id = f"m{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = message_id
            reply = self.answer(message)
            if reply is not None:
                self.replies[message_id] = reply
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids):
        return [self.replies.pop(one) for one in list(message_ids) if one in self.replies]


def client(partition_id: int, modality: str = "image", classes: int = 3, domain: int = 0) -> ClientInfo:
    return ClientInfo(partition_id, modality, 0, domain, tuple(f"class-{i}" for i in range(classes)), 10, 5, 5)


def mailbox(answer: Answer, record=lambda event, **fields: None, **settings) -> Mailbox:
    """Three clients, partition ids 0 to 2 on nodes 11 to 13."""
    refuse = settings.pop("refuse", ())
    clients = {client(i): 11 + i for i in range(3)}
    return Mailbox(FakeGrid(answer, refuse=refuse), clients, record, **settings)


def ask_all(box: Mailbox, shapes: dict[str, tuple[int, ...]], arrays=None):
    record = None if arrays is None else to_arrays(arrays)
    messages = [
        message_to(box.nodes[i], "train", Instruction(i, "run", "token", "arm", SOURCE_HASH, round=4), record)
        for i in box.clients
    ]
    return box.ask(messages, lambda _: shapes)


def good(message: Message, arrays: dict[str, np.ndarray] | None = None, **metrics: float) -> Message:
    content = RecordDict({METRICS: MetricRecord({"num-examples": 7, **metrics})})
    if arrays is not None:
        content[ARRAYS] = to_arrays(arrays)
    return Message(content, reply_to=message)


def error(message: Message, reason: str) -> Message:
    """Return an error as the SuperLink sends it: from node 1, whoever failed."""
    reply = Message(Error(0, reason), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1
    return reply

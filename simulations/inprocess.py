"""The in-process engine: the real ServerApp and ClientApp in one process, with no Ray and no SuperLink.

For tests, debugging and quick comparisons. Messages are handled one after the other, when they are pushed.
"""

from __future__ import annotations

import itertools
import os
import traceback
import uuid
from collections.abc import Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

import config as settings
from config import RunConfig

SERVER_NODE = 1
FIRST_CLIENT_NODE = 1001


class InProcessGrid(Grid):
    """A grid whose nodes are calls of one ClientApp.

    Args:
        app: the ClientApp that every node runs.
        run_config: Flower's flat run config.
        num_nodes: simulated SuperNodes; node i gets ``partition-id = i`` and ``num-partitions``.
    """

    def __init__(self, app: ClientApp, run_config: dict[str, settings.Scalar], num_nodes: int) -> None:
        self.app = app
        self.contexts = {
            FIRST_CLIENT_NODE + i: Context(
                run_id=1,
                node_id=FIRST_CLIENT_NODE + i,
                node_config={"partition-id": i, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for i in range(num_nodes)
        }
        self.replies: dict[str, Message] = {}
        _identify(SERVER_NODE)

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Run:
        """Flower's description of the run; not used by this engine."""
        raise NotImplementedError("the in-process engine has no Flower run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message; deprecated in Flower, kept for its interface."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Handle each message at once and keep its reply; return the message ids."""
        ids = []
        for message in messages:
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            self.replies[message_id] = self._handle(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages, each once."""
        return [self.replies.pop(message_id) for message_id in list(message_ids) if message_id in self.replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, and return all replies."""
        return self.pull_messages(self.push_messages(messages))

    def _handle(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        _identify(node)
        try:
            return self.app(message, self.contexts[node])
        except Exception:
            return Message(Error(code=0, reason=traceback.format_exc()), reply_to=message)
        finally:
            _identify(SERVER_NODE)


def run(config: RunConfig) -> None:
    """Run a config in this process.

    Raises:
        Exception: whatever made the run fail.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    from client.app import app as client_app
    from data_partition.subgroups import subgroups
    from server.app import app as server_app

    run_config = settings.flatten(config)
    num_nodes = config.federation.clients or len(subgroups(config.data))
    grid = InProcessGrid(client_app, run_config, num_nodes)
    context = Context(run_id=1, node_id=SERVER_NODE, node_config={}, state=RecordDict(), run_config=dict(run_config))
    server_app(grid, context)


_task_ids = itertools.count(1)


def _identify(node_id: int) -> None:
    """Tell Flower who is at work, as Message needs to know. A private interface of Flower, used here only."""
    TaskIdentity.run_id = 1
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = next(_task_ids)

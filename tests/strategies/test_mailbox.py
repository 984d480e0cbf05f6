import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from strategies.mailbox import connect, exception_in
from strategies.protocol import CONFIG, MIXING_MATRIX, SOURCE_HASH, RunError
from tests.fakes import FakeGrid, ask_all, client, error, good, mailbox

SHAPES = {"w": (2,)}
FINE = {"w": np.ones(2, np.float32)}


def partition(message):
    return message.content[CONFIG]["partition_id"]


def answer_with(bad, for_client=1):
    return lambda message: bad(message) if partition(message) == for_client else good(message, FINE)


def test_replies_come_by_partition_id_and_carry_arrays():
    replies = ask_all(mailbox(lambda m: good(m, {"w": np.full(2, partition(m), np.float32)})), SHAPES)
    assert [reply.client.partition_id for reply in replies] == [0, 1, 2]
    assert [reply.arrays["w"].tolist() for reply in replies] == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda m: error(m, "Traceback …\nValueError: no data"), "ValueError: no data"),
        (lambda m: good(m, {"v": np.ones(2, np.float32)}), "not asked for ['v'], missing ['w']"),
        (lambda m: good(m, FINE | {"secret": np.ones(1, np.float32)}), "not asked for ['secret']"),
        (lambda m: good(m), "missing ['w']"),
        (lambda m: good(m, {"w": np.ones(3, np.float32)}), "shape (3,), expected (2,)"),
        (lambda m: good(m, {"w": np.array([1, np.nan], np.float32)}), "not finite"),
        (lambda m: good(m, {"w": np.array([1, np.inf], np.float32)}), "not finite"),
        (lambda m: good(m, FINE, **{"num-examples": 0}), "0 examples"),
        (lambda m: Message(RecordDict({"other": MetricRecord({"a": 1})}), reply_to=m), "no record 'metrics'"),
    ],
)
def test_a_bad_answer_is_refused_and_names_its_client(bad, reason):
    with pytest.raises(RunError) as raised:
        ask_all(mailbox(answer_with(bad)), SHAPES)
    (line,) = [line for line in str(raised.value).splitlines() if line.startswith("  client 1: ")]
    assert reason in line
    assert "2 valid replies of 3 asked" in str(raised.value)


@pytest.mark.parametrize("columns", [[0, 4], [], [-1], 2])
def test_columns_that_the_matrix_does_not_have_are_refused(columns):
    arrays = {MIXING_MATRIX: np.ones((3, 4), np.float32)}

    def answer(message):
        return good(message, arrays, columns=columns if partition(message) == 1 else [3, 0])

    with pytest.raises(RunError, match=r"client 1: the reply kept the columns .*, expected some of 0 to 3"):
        ask_all(mailbox(answer), {MIXING_MATRIX: (3, 4)})


def test_min_replies_lets_the_round_go_on_and_records_the_refusal():
    events = []
    box = mailbox(answer_with(lambda m: error(m, "boom")), lambda event, **f: events.append((event, f)), min_replies=2)
    assert [reply.client.partition_id for reply in ask_all(box, SHAPES)] == [0, 2]
    refused = [fields for event, fields in events if event == "refused"]
    assert [(f["client"], f["round"], f["arm"], f["reason"]) for f in refused] == [(1, 4, "arm", "boom")]


def test_all_failing_stops_the_run_whatever_min_replies():
    with pytest.raises(RunError, match="0 valid replies of 3"):
        ask_all(mailbox(lambda m: error(m, "boom"), min_replies=1), SHAPES)


def test_a_client_that_never_answers_ends_the_wait():
    with pytest.raises(RunError, match="client 2: no reply in time"):
        ask_all(mailbox(lambda m: None if partition(m) == 2 else good(m, FINE), reply_timeout=0.05), SHAPES)


def test_a_refused_push_is_not_mistaken_for_another_client():
    box = mailbox(
        lambda m: good(m, {"w": np.full(2, partition(m), np.float32)}), refuse=[11], min_replies=1, reply_timeout=0.05
    )
    assert [(r.client.partition_id, r.arrays["w"][0]) for r in ask_all(box, SHAPES)] == [(1, 1.0), (2, 2.0)]


def test_ledger_counts_payload_exactly_and_framing_apart():
    events = []
    box = mailbox(lambda m: good(m, FINE), lambda event, **fields: events.append((event, fields)))
    ask_all(box, SHAPES, arrays={"w": np.ones(2, np.float16)})
    fields = next(fields for event, fields in events if event == "message")
    assert (fields["parameters_down"], fields["bytes_down"]) == (2, 4)
    assert (fields["parameters_up"], fields["bytes_up"]) == (2, 8)
    assert fields["framing_up"] > 0


def described(*clients):
    return lambda m: Message(RecordDict({CONFIG: ConfigRecord({"clients": [c.to_json() for c in clients]})}), reply_to=m)


def test_connect_finds_the_node_of_every_client():
    grid = FakeGrid(lambda m: described(client(m.metadata.dst_node_id - 11))(m))
    found = connect(grid, [0, 2], timeout=5)
    assert {info.partition_id: node for info, node in found.items()} == {0: 11, 2: 13}
    assert all(m.content[CONFIG]["source_hash"] == SOURCE_HASH for m in grid.sent)


def test_connect_names_the_missing_clients():
    with pytest.raises(RunError, match=r"3 nodes connected.*clients \[5\] of \[0, 5\]"):
        connect(FakeGrid(described(client(0))), [0, 5], timeout=0.05)


def test_connect_does_not_mind_the_error_of_a_node_that_hosts_no_wanted_client():
    def answer(message):
        node = message.metadata.dst_node_id
        return error(message, "RunError: gone") if node == 12 else described(client(node - 11))(message)

    assert {info.partition_id for info in connect(FakeGrid(answer), [0, 2], timeout=5)} == {0, 2}


def test_connect_without_nodes_ends():
    with pytest.raises(RunError, match="0 nodes connected"):
        connect(FakeGrid(described(), nodes=()), [0], timeout=0.05)


def test_connect_tells_why_a_client_refuses():
    with pytest.raises(RunError, match="RunError: this client runs other source"):
        connect(FakeGrid(lambda m: error(m, "Traceback\nRunError: this client runs other source")), [0], timeout=5)


def test_exception_in_of_a_remote_traceback():
    assert exception_in("Traceback\n  File 'a'\n    raise ValueError('x')\nValueError: x\n\n") == "ValueError: x"
    assert (
        exception_in("E\n  x\ndata.files.DataError: gone\n  - /a\nWhat to do: b")
        == "data.files.DataError: gone\n  - /a\nWhat to do: b"
    )
    assert exception_in("") == "no reason given"
    assert exception_in("<class 'strategies.protocol.RunError'>:<'other source'>") == "RunError: other source"
    wrapped = "<class 'flwr.X'>:<'\nException ClientAppException occurred. Message: loss is nan'>"
    assert exception_in(wrapped) == "loss is nan"

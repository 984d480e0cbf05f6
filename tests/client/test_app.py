import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client import learner
from client.app import describe
from client.messages import own_data
from config import Data, flatten, parse
from data_partition.client_data import load_client
from data_partition.streams import task_subgroups
from data_partition.subgroups import find_subgroup
from simulations.inprocess import SERVER_NODE, _identify
from strategies.protocol import CONFIG, DESCRIBE, SOURCE_HASH, ClientInfo, RunError


def test_a_node_has_its_files_somewhere_else():
    config = parse({"data.vocab-file": "/server/vocab.txt", "data.seed": 3, "model.dim": 32})

    def seen(**node):
        context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})
        own = own_data(config, context)
        assert (own.data.seed, own.model.dim) == (3, 32)
        return own.data.data_dir, own.data.vocab_file, own.model.embedding_dir

    assert seen() == ("", "/server/vocab.txt", "")
    assert seen(**{"data-dir": "/a"}) == ("/a", "/server/vocab.txt", "")
    assert seen(**{"vocab-file": "/b", "embedding-dir": "/c"}) == ("", "/b", "/c")
    node = Context(run_id=1, node_id=1, node_config={"pretrained-dir": "/d"}, state=RecordDict(), run_config={})
    assert own_data(config, node).clip.pretrained_dir == "/d"


def test_a_node_says_itself_whether_its_inputs_may_be_used():
    config = parse({"packing.consent": "3,4"})

    def consents(**node):
        own = own_data(config, Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={}))
        return [own.packing.consents(client) for client in (3, 5)]

    assert consents() == [True, False]  # a simulation: the run config says it
    assert consents(consent=True) == [True, True]
    assert consents(consent=False) == [False, False]
    assert consents(**{"data-dir": "/a"}) == [False, False]  # a machine with data of its own has to say it itself
    assert consents(**{"data-dir": "/a", "consent": True}) == [True, True]
    with pytest.raises(RunError, match="consent = 'yes'"):
        consents(consent="yes")


def described(config, *partition_ids):
    _identify(SERVER_NODE)
    question = ConfigRecord({"source_hash": SOURCE_HASH, "partition_ids": list(partition_ids)})
    node = {"partition-id": 0, "num-partitions": 1}
    context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=flatten(config))
    answer = describe(Message(RecordDict({CONFIG: question}), 11, DESCRIBE), context)
    return [ClientInfo.from_json(line) for line in answer.content[CONFIG]["clients"]]


@pytest.mark.parametrize("order", ["same", "shuffled"])
def test_a_client_tells_its_tasks_in_its_own_order_and_the_size_of_all(order):
    config = parse({"data.tasks-per-client": 3, "data.task-order": order})
    told, alone = described(config, 1, 8), described(parse({}), 1, 8)
    for client, whole in zip(told, alone, strict=True):
        group, data = find_subgroup(Data(), client.partition_id), load_client(Data(), client.partition_id)
        assert client.tasks == tuple(task.classes for task in task_subgroups(config.data, group))
        assert (len(client.tasks), client.classes, client.group) == (3, group.classes, group.group)
        assert (client.num_train, client.num_val, client.num_test) == tuple(map(len, (data.train, data.val, data.test)))
        assert (client.warnings, whole.tasks, whole.warnings) == ((), (), ())
        assert ClientInfo.from_json(client.to_json()) == client
        assert hash(client)


def test_a_client_warns_of_a_class_that_a_task_cannot_validate(monkeypatch):
    load = learner.load_task

    def without_first_class(data, partition_id, task, fraction):
        found = load(data, partition_id, task, fraction)
        kept = found.val.labels > 0
        val = type(found.val)(found.val.inputs[kept], found.val.labels[kept])
        return type(found)(found.subgroup, found.train, val, found.test) if task == 1 else found

    learner._cached_client.cache_clear()
    monkeypatch.setattr(learner, "load_task", without_first_class)
    client = described(parse({"data.tasks-per-client": 2}), 0)[0]
    learner._cached_client.cache_clear()
    assert client.warnings == (f"task 1: no validation example of the class {client.tasks[1][0]}",)
    assert ClientInfo.from_json(client.to_json()) == client

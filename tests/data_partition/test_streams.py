import pytest
import torch

from config import CLASSES_PER_CLIENT, Data, task_fault
from data_partition import streams
from data_partition.client_data import ClientData, Split, load_client
from data_partition.files import DataError
from data_partition.streams import check_task, empty_classes, load_task, task_classes, task_order, task_subgroups
from data_partition.subgroups import Subgroup, find_subgroup, subgroups

STREAMS = [("mixed", 2), ("theme", 2), ("siblings", 2), ("siblings", 4), ("tri", 2), ("tri", 3), ("tri", 4), ("tri", 6)]


def same(first: Split, second: Split) -> bool:
    return torch.equal(first.inputs, second.inputs) and torch.equal(first.labels, second.labels)


def splits(client: ClientData) -> tuple[Split, Split, Split]:
    return client.train, client.val, client.test


@pytest.mark.parametrize("partition_id", [0, 4, 6, 11])
@pytest.mark.parametrize("grouping", ["mixed", "tri"])
@pytest.mark.parametrize("order", ["same", "shuffled"])
def test_one_task_is_the_client_bit_for_bit(partition_id, grouping, order):
    data = Data(grouping=grouping, task_order=order)
    for fraction in (None, 0.1):
        whole, task = load_client(data, partition_id, fraction), load_task(data, partition_id, 0, fraction)
        assert task.subgroup == whole.subgroup
        assert all(same(*pair) for pair in zip(splits(whole), splits(task), strict=True))


def test_the_only_task_of_a_client_is_not_looked_into(monkeypatch):
    single = made([0], [0], [], ("a",))
    monkeypatch.setattr(streams, "load_client", lambda data, partition_id, train_fraction: single)
    assert load_task(Data(), 0, 0) is single


@pytest.mark.parametrize("grouping", ["mixed", "theme", "siblings", "tri"])
def test_the_config_knows_how_many_classes_a_client_has(grouping):
    known = CLASSES_PER_CLIENT["emojipairs"][grouping]
    assert {len(one.classes) for one in subgroups(Data(grouping=grouping))} == {known}


@pytest.mark.parametrize("order", ["same", "shuffled"])
@pytest.mark.parametrize(("grouping", "number"), STREAMS)
def test_tasks_part_the_rows_of_a_client(grouping, number, order):
    """Every row of the client is in one task, in its order, and its local label names the class of its old label."""
    data = Data(grouping=grouping, tasks_per_client=number, task_order=order)
    for partition_id in (1, 7):
        whole = load_client(data, partition_id)
        tasks = [load_task(data, partition_id, index) for index in range(number)]
        assert sorted(name for task in tasks for name in task.subgroup.classes) == sorted(whole.subgroup.classes)
        for task in tasks:
            names = task.subgroup.classes
            assert len(names) == len(whole.subgroup.classes) // number
            assert not empty_classes(task)
            for mine, all_rows in zip(splits(task), splits(whole), strict=True):
                assert mine.labels.dtype == torch.int64
                wanted = [i for i, label in enumerate(all_rows.labels) if whole.subgroup.classes[label] in names]
                assert torch.equal(mine.inputs, all_rows.inputs[wanted])
                assert [names[i] for i in mine.labels] == [whole.subgroup.classes[i] for i in all_rows.labels[wanted]]
                assert set(mine.labels.tolist()) == set(range(len(names)))
        for place, split in enumerate(splits(whole)):
            assert sum(len(splits(task)[place]) for task in tasks) == len(split)


@pytest.mark.parametrize(("grouping", "number"), STREAMS)
def test_clients_of_one_class_list_have_the_same_tasks_whatever_the_order(grouping, number):
    for order in ("same", "shuffled"):
        data = Data(grouping=grouping, tasks_per_client=number, task_order=order)
        clients = subgroups(data)
        by_group: dict[int, tuple[str, ...]] = {}
        for client in clients:
            tasks = task_subgroups(data, client)
            for task in tasks:
                assert by_group.setdefault(task.group, task.classes) == task.classes
                assert [name for name in client.classes if name in task.classes] == list(task.classes)
            twins = [task_subgroups(data, other) for other in clients if other.classes == client.classes]
            assert all({t.classes for t in other} == {t.classes for t in tasks} for other in twins)
            assert order == "shuffled" or all([t.classes for t in other] == [t.classes for t in tasks] for other in twins)
        assert len(set(by_group.values())) == len(by_group) == number * len({client.group for client in clients})


def test_shuffled_orders_differ_between_clients_and_repeat():
    orders = [task_order(6, "shuffled", 0, client) for client in range(12)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 6
    assert orders == [task_order(6, "shuffled", 0, client) for client in range(12)]
    assert orders != [task_order(6, "shuffled", 1, client) for client in range(12)]
    assert task_order(6, "same", 3, 4) == list(range(6))


def test_the_seed_decides_which_classes_make_a_task():
    """Golden: results depend on it. A list in another order gives tasks of the same classes."""
    classes = ("a", "b", "c", "d", "e", "f")
    tasks = task_classes(classes, 3, 0)
    assert tasks == [("e", "f"), ("b", "c"), ("a", "d")]
    assert tasks != task_classes(classes, 3, 1)
    assert [set(task) for task in task_classes(classes[::-1], 3, 0)] == [set(task) for task in tasks]
    assert task_classes(classes, 1, 0) == [classes]


def test_consecutive_tasks_are_blocks_of_the_list():
    assert task_classes("ecbdaf", 3, 0, "consecutive") == task_classes("ecbdaf", 3, 1, "consecutive")
    assert task_classes("ecbdaf", 3, 0, "consecutive") == [("e", "c"), ("b", "d"), ("a", "f")]
    data = Data(tasks_per_client=3, task_classes="consecutive")
    for partition_id in (2, 8):
        names = find_subgroup(data, partition_id).classes
        tasks = [load_task(data, partition_id, index) for index in range(3)]
        assert [one.subgroup.classes for one in tasks] == [names[:4], names[4:8], names[8:]]
        assert all(set(split.labels.tolist()) == set(range(4)) for one in tasks for split in splits(one))
    shuffled = Data(tasks_per_client=3, task_classes="consecutive", task_order="shuffled")
    order = task_order(3, "shuffled", 0, 2)
    found = [one.classes for one in task_subgroups(shuffled, find_subgroup(shuffled, 2))]
    assert found == [find_subgroup(data, 2).classes[4 * index : 4 * index + 4] for index in order]


def test_task_sizes_by_hand():
    assert [number for number in range(1, 13) if not task_fault(12, number)] == [1, 2, 3, 4, 6]
    assert [number for number in range(1, 8) if not task_fault(7, number)] == [1]
    assert not task_fault(1, 1)
    with pytest.raises(DataError, match=r"tasks-per-client = 4 does not split 6 classes.*one of 1, 2, 3\."):
        task_classes("abcdef", 4, 0)
    with pytest.raises(DataError, match="2 or more"):
        task_classes("abcdef", 6, 0)


def test_a_data_set_that_the_config_does_not_know_is_checked_when_it_is_read():
    data = Data(tasks_per_client=4)
    odd = Subgroup(3, "image", 0, tuple("abcde"), 0, ("x",))
    with pytest.raises(DataError, match=r"client 3: data\.tasks-per-client = 4 does not split 5 classes"):
        task_subgroups(data, odd)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_task_that_does_not_exist(index):
    with pytest.raises(DataError, match=rf"client 2 has no task {index}.*0 to 2"):
        load_task(Data(tasks_per_client=3), 2, index)


def test_a_smaller_share_of_a_task_is_a_part_of_a_larger():
    data = Data(tasks_per_client=3)
    full, small = load_task(data, 2, 1), load_task(data, 2, 1, train_fraction=0.1)
    assert {row.numpy().tobytes() for row in small.train.inputs} < {row.numpy().tobytes() for row in full.train.inputs}
    assert same(small.test, full.test)


def made(train, val, test, names=("a", "b")) -> ClientData:
    """A task of these classes with these labels."""
    group = Subgroup(5, "image", 1, names, 0, ("x",))
    return ClientData(group, *(Split(torch.arange(len(one)), torch.tensor(one)) for one in (train, val, test)))


def test_a_task_that_cannot_be_learned_is_refused():
    both = [0, 1]
    fine = made(both, both, both)
    assert check_task(fine) is fine
    with pytest.raises(DataError, match="client 5, task of the classes a: expected 2 classes"):
        check_task(made([0], [0], [0], ("a",)))
    with pytest.raises(DataError, match="classes c, b: no training example of b"):
        check_task(made([0, 0], both, both, ("c", "b")))
    for place, name in enumerate(("training", "validation", "test")):
        parts = [both, both, both]
        parts[place] = []
        with pytest.raises(DataError, match=f"no {name} example;"):
            check_task(made(*parts))


def test_a_class_missing_from_validation_or_test_is_told():
    taken = check_task(made([0, 1], [1], [0]))
    assert empty_classes(taken) == ("no validation example of the class a", "no test example of the class b")


def test_a_task_is_its_own_copy():
    data = Data(tasks_per_client=2)
    load_task(data, 0, 0).train.inputs.zero_()
    assert load_task(data, 0, 0).train.inputs.any()
    assert find_subgroup(data, 0).classes == load_client(data, 0).subgroup.classes

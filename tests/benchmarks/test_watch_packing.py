"""How the benchmark of packing on watch data compares its arms."""

from dataclasses import replace

import pytest
import torch

from benchmarks import watch_packing
from benchmarks.watch_packing import PROTOCOLS, VALIDATED, WHOLE, epochs_of, fresh, gain, measure, table
from config import RunConfig
from data_partition.client_data import load_client
from models.groups import named_tensors
from tests.data_partition.series_trees import trust_watch, write_watch

RUNS = [
    {"1:1": (50.0, 60.0), "1:3": (55.0, 66.0), "ensemble": (70.0, 71.0)},
    {"1:1": (52.0, 64.0), "1:3": (54.0, 62.0), "ensemble": (70.0, 73.0)},
]


def start_of(model):
    return named_tensors(model)["head.classifier.weight"].clone()


def test_gains_are_paired_and_of_test():
    assert gain(RUNS, "1:1") == pytest.approx(2.0)
    assert gain(RUNS, "1:1", 0) == pytest.approx(3.5)
    assert gain(RUNS, "ensemble") == pytest.approx(-8.0)


def test_a_row_of_the_table_by_hand():
    found = table(RUNS)
    columns = {str(column.header): list(column.cells) for column in found.columns}
    assert columns["arm"] == ["1:1", "1:3", "ensemble"]
    assert columns["test"] == ["62.00", "64.00", "72.00"]
    assert columns["deviation"][0] == "2.83"
    assert columns["1:3 is above it by"] == ["+2.00 (1 of 2)", "", "-8.00 (0 of 2)"]
    assert next(iter(table(RUNS[:1]).columns[3].cells)) == "–"
    last = {str(column.header): next(iter(column.cells)) for column in table(RUNS, validated=False).columns}
    assert last == {"arm": "1:1", "test": "62.00", "deviation": "2.83", "1:3 is above it by": "+2.00 (1 of 2)"}


def test_everybody_begins_alike():
    first, again, other = (start_of(fresh(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert not (first == other).all()


def test_the_whole_protocol_chooses_nothing_by_what_it_trains_on():
    assert WHOLE.data.train_on_validation
    assert not VALIDATED.data.train_on_validation
    assert WHOLE.labelled + WHOLE.unlabelled == WHOLE.alone == WHOLE.how.batch_size == 64
    for protocol in PROTOCOLS.values():
        RunConfig(data=protocol.data, strategy={"name": "distil"}, model={"name": "wrn-16-1"})  # the app takes them too


@pytest.mark.parametrize("name", PROTOCOLS)
def test_arms_differ_in_teachers_alone(monkeypatch, tmp_path, name):
    """Seven students: the same start, the same labelled windows, and as many steps; the target's teacher teaches nobody."""
    folder = write_watch(tmp_path / "data", 60)
    trust_watch(monkeypatch, folder)
    own = PROTOCOLS[name].data.model_copy(update={"data_dir": str(folder), "window": 20, "step": 4})
    protocol, target, seed = replace(PROTOCOLS[name], data=own), 1, 2
    told = []

    def pack(model, teachers, data, settings, how, *, seed):
        examples, names = data.task.train, [teacher.name for teacher in teachers]
        steps = settings.epochs * -(-len(examples) // how.batch_size)
        told.append((names, steps, start_of(model), examples.inputs, how.batch_size, settings.unlabelled_batch, seed))

    monkeypatch.setattr(watch_packing, "pack", pack)
    models = [fresh(seed) for _ in range(4)]
    found = measure(protocol, target, models, seed)
    assert list(found) == ["scratch", "all labels", "self", "1:1", "best of 1:1", "1:3", "ensemble"]
    whole, few = (load_client(protocol.of_seed(seed), target, share).train.inputs for share in (1.0, None))
    by_names = {tuple(names): rest for names, *rest in told if not torch.equal(rest[2], whole)}
    one = ["teacher 0", "teacher 1", "teacher 2"]
    assert {*by_names} == {(), ("self",), *((name,) for name in one), tuple(one)}
    assert len(told) == 7
    for names, steps, begun, inputs, batch, unlabelled, used in told:
        assert abs(steps - protocol.steps) < 10
        assert torch.equal(begun, start_of(fresh(seed if protocol.common_start else seed + watch_packing.OWN_START)))
        assert torch.equal(inputs, few) or not names
        assert batch == (protocol.labelled if names else protocol.alone)
        assert (unlabelled, used) == (protocol.unlabelled, seed)


def test_epochs_are_as_many_steps():
    assert [epochs_of(240, examples, batch) for examples, batch in ((99, 7), (99, 64), (1006, 64), (10_000, 1))] == [
        16,
        120,
        15,
        1,
    ]


def test_labels_are_drawn_for_each_seed_or_once():
    assert [WHOLE.of_seed(seed).seed for seed in (0, 3)] == [0, 3]
    assert [VALIDATED.of_seed(seed).seed for seed in (0, 3)] == [0, 0]

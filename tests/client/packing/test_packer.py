"""Learning, equal bits, the gradient of the sum, what is logged, and where the student's inputs come from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from client.continual.train import Optimisation, random_stream
from client.continual.train import train as train_alone
from client.modeldiff.tune import with_decay
from client.packing import packer as module
from client.packing.data import PackData, Parent, all_inputs
from client.packing.losses.logits import hinton
from client.packing.losses.rows import cosine
from client.packing.packer import pack
from client.packing.plan import make_plan
from client.packing.teachers import Teacher, prototypes_of
from config import Packing
from data_partition.client_data import Split
from models.groups import copy_model, named_tensors, ownable
from tests.client.continual.helpers import Facts, separable
from tests.client.packing.helpers import CLASSES, CPU, HOW, Watched, data, model, packing, same, teacher, tensors, texts
from tests.models.helpers import tiny

EVERY_LATENT_LOSS = "kd,cosine,mse,mse-batch,amd,sp,cka,ifalign"


@torch.no_grad()
def distance(student: nn.Module, other: Teacher, inputs: Tensor) -> float:
    """Mean KL from a teacher, dropout off."""
    return float(hinton(student.eval()(inputs), other.model(inputs), 1.0).mean())


def test_the_student_comes_nearer_to_its_teachers() -> None:
    student, teachers, material = model(0), [teacher(1), teacher(2)], data()
    inputs = all_inputs(material, packing())
    before = [distance(student, one, inputs) for one in teachers]
    settings = packing(epochs=15, cross_entropy=0.0)
    packed = pack(student, teachers, material, settings, HOW)
    after = [distance(student, one, inputs) for one in teachers]
    assert sum(after) < 0.7 * sum(before)
    assert packed.epochs[-1].losses["kd"] < 0.7 * packed.epochs[0].losses["kd"]
    assert not student.training


@pytest.mark.parametrize(
    "settings",
    [{}, {"losses": EVERY_LATENT_LOSS, "weights": "ebkd"}, {"views": "clean", "losses": "kd,sp", "weights": "ca-mkd"}],
)
def test_the_same_seed_gives_the_same_bits(settings: dict[str, object]) -> None:
    noisy = data()
    noisy = replace(noisy, task=replace(noisy.task, augment=lambda x, g: x + 0.1 * torch.rand(x.shape, generator=g)))

    def run(seed: int, before: int) -> tuple[dict[str, Tensor], module.Packed]:
        torch.manual_seed(before)  # whatever ran before
        student = model(0, dropout=0.2)
        packed = pack(student, [teacher(1), teacher(2)], noisy, packing(**settings), HOW, seed=seed)
        return tensors(student), packed

    first, again, other = run(3, 0), run(3, 1), run(4, 0)
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert not same(first[0], other[0])


@pytest.mark.parametrize("weights", ["similarity", "ca-mkd"])
def test_one_step_descends_the_sum_of_all_terms(weights: str) -> None:
    """The student's graph is cut, and teachers take turns: the gradient is that of the whole loss."""
    how = Optimisation(batch_size=6, optimizer="sgd", momentum=0.0, learning_rate=0.3, weight_decay=0.0, clip_norm=0.0)
    settings = packing(
        epochs=1, losses="kd:0.7,cosine:2", weights=weights, temperature=3.0, cross_entropy=0.5, projector="where-needed"
    )
    material, teachers = data(6, 6), [teacher(k, similarity=0.1 * k) for k in (1, 2)]
    student = model(0, dropout=0.0)
    expected = copy_model(student)
    pack(student, teachers, material, settings, replace(how, schedule="constant"))

    inputs, labels = all_inputs(material, settings), material.task.train.labels
    trace = expected.train().trace(inputs)  # type: ignore[operator]
    loss = 0.5 * F.cross_entropy(trace.logits[:6], labels)
    shares = make_plan(model(0), teachers, material, settings, 0, CPU).weights
    if weights == "similarity":
        assert shares[0].tolist() == pytest.approx(torch.tensor([0.1 / 0.25, 0.2 / 0.25]).softmax(dim=0).tolist())
    else:
        assert len(shares.unique(dim=0)) > 3  # each labelled row has its own
    for share, one in zip(shares.T, teachers, strict=True):
        with torch.no_grad():
            answer = one.model.trace(inputs)  # type: ignore[operator]
        rows = torch.stack([cosine(a, b) for a, b in zip(trace.latents, answer.latents, strict=True)]).mean(dim=0)
        loss = loss + (share * (0.7 * hinton(trace.logits, answer.logits, 3.0) + 2 * rows)).mean()
    loss.backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter -= 0.3 * parameter.grad  # type: ignore[operator]
    for name, value in named_tensors(expected).items():
        torch.testing.assert_close(named_tensors(student)[name], value, rtol=1e-4, atol=1e-6)


def test_without_teachers_it_is_plain_training_with_the_same_bits() -> None:
    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return inputs + 0.1 * torch.rand(inputs.shape, generator=generator)

    material = data()
    material = replace(material, task=replace(material.task, augment=augment))
    student, control = model(0), model(0)
    packed = pack(student, [], material, packing(epochs=3), HOW, seed=5)
    with random_stream(5, 0, "packing", 0, CPU) as generator:
        groups = with_decay(control.parameters(), HOW.weight_decay)
        train_alone(control, control, groups, material.task, HOW, epochs=3, generator=generator)
    assert same(tensors(student), tensors(control))
    assert [set(epoch.losses) for epoch in packed.epochs] == [{"cross-entropy"}] * 3


def test_teachers_change_neither_steps_nor_labelled_batches() -> None:
    seen: list[list[Tensor]] = []

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        seen[-1].append(inputs + torch.rand(1, generator=generator))
        return seen[-1][-1]

    material = data()
    material = replace(material, task=replace(material.task, augment=augment))
    steps = []
    for teachers in ([], [teacher(1)]):
        seen.append([])
        packed = pack(model(0), teachers, material, packing(unlabelled_batch=12), HOW)
        steps.append([epoch.steps for epoch in packed.epochs])
    assert steps == [[2, 2], [2, 2]]
    labelled = [batch for batch in seen[1] if len(batch) == 5]
    assert len(seen[1]) == 2 * len(seen[0]) == 8
    assert all(torch.equal(a, b) for a, b in zip(seen[0], labelled, strict=True))


def test_teachers_are_not_changed_and_do_not_train() -> None:
    one = teacher(1, net=tiny("image", name="lenet5", num_classes=3, width=0.5))
    student = tiny("image", name="lenet5", num_classes=3, seed=1, width=0.5)
    before, names, maskable = tensors(one.model.train()), list(named_tensors(student)), list(ownable(student))
    material = PackData(separable(0, 10, side=32), CLASSES, separable(1, 10, side=32).train.inputs)
    pack(student, [one], material, packing(losses="kd,amd,amd-local,cosine,sp"), HOW)
    assert same(before, tensors(one.model))  # running means too
    assert not one.model.training
    assert all(parameter.grad is None for parameter in one.model.parameters())
    # Learned maps are not the student's: they cannot travel, nor be masked.
    assert list(named_tensors(student)) == names
    assert list(ownable(student)) == maskable


def test_epochs_are_logged() -> None:
    facts = Facts()
    material = replace(data(), task=separable(0, size=10))
    settings = packing(losses="kd,ifalign", weights="similarity", weight_temperature=0.1)
    teachers = [teacher(1, similarity=0.3), teacher(2, similarity=0.3 + 0.1 * 0.6931471805599453)]  # weights 1/3 and 2/3
    packed = pack(model(0), teachers, material, settings, HOW, record=facts)
    assert facts.events == ["pack-epoch", "pack-epoch"]
    fact = json.loads(json.dumps(facts.seen[1]))
    assert fact["epoch"] == 2
    assert set(fact["losses"]) == {"cross-entropy", "kd", "ifalign"}
    assert fact["effective_teachers"] == pytest.approx(1 / (1 / 9 + 4 / 9), rel=1e-5)
    assert set(fact["agreement"]) == {"teacher-1", "teacher-2"}
    assert all(0 <= share <= 1 for share in fact["agreement"].values())
    assert 0 <= packed.epochs[1].validation <= 1  # type: ignore[operator]


def test_a_student_agrees_with_its_copy() -> None:
    student = model(0, dropout=0.0)
    own = Teacher("self", copy_model(student), CLASSES)
    packed = pack(student, [own], data(), packing(epochs=1, rate=1e-9), HOW)
    assert packed.epochs[0].agreement == {"self": 1.0}
    assert packed.epochs[0].losses["kd"] == pytest.approx(0.0, abs=1e-6)
    assert packed.epochs[0].effective_teachers == 1.0


def test_distillation_stops_and_teachers_are_asked_no_more(watched: type[Watched]) -> None:
    one = teacher(1)
    packed = pack(model(0), [replace(one, model=Watched(one.model))], data(), packing(epochs=4, stop_epoch=1), HOW)
    assert [set(epoch.losses) for epoch in packed.epochs] == [{"cross-entropy", "kd"}] + [{"cross-entropy"}] * 3
    assert [epoch.effective_teachers for epoch in packed.epochs] == [1.0, 0.0, 0.0, 0.0]
    assert watched.calls == 1 + 2  # shapes, and the two steps of the first epoch


@pytest.mark.parametrize(
    ("asked_about", "settings"),
    [
        ({"labelled", "unlabelled"}, {}),
        ({"unlabelled"}, {"distil_on": "unlabelled"}),
        ({"labelled"}, {"distil_on": "labelled"}),
        ({"parent"}, {"data": "parent", "consent": "7"}),
        ({"labelled", "unlabelled", "parent"}, {"data": "both", "consent": "all"}),
        ({"unlabelled", "parent"}, {"data": "both", "consent": "6,7", "distil_on": "unlabelled"}),
    ],
)
def test_teachers_are_asked_about_what_was_chosen(
    monkeypatch: pytest.MonkeyPatch, asked_about: set[str], settings: dict[str, object]
) -> None:
    whose = {"labelled": 0.1, "unlabelled": 0.2, "parent": 0.3}
    seen: set[float] = set()

    def ask(net: nn.Module, inputs: Tensor, *args: object) -> object:
        seen.update(round(float(value), 3) for value in inputs[:, 0, 0, 0])
        return real(net, inputs, *args)  # type: ignore[arg-type]

    real = module.ask
    monkeypatch.setattr(module, "ask", ask)
    images = {name: torch.full((10, 3, 16, 16), level) for name, level in whose.items()}
    task = replace(data().task, train=Split(images["labelled"], torch.arange(10) % 3))
    material = PackData(task, CLASSES, images["unlabelled"], (Parent(7, images["parent"]),))
    pack(model(0), [teacher(1)], material, packing(**settings), HOW)
    assert seen == {whose[name] for name in asked_about}


def test_every_input_is_asked_about_before_one_is_again(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def step(self: object, known: Tensor, rows: Tensor, *args: object) -> None:
        drawn.extend(rows.tolist())
        real(self, known, rows, *args)  # type: ignore[arg-type]

    real = module._Packer._step
    monkeypatch.setattr(module._Packer, "_step", step)
    pack(model(0), [teacher(1)], data(10, 12), packing(epochs=3), HOW)  # 6 steps of 5, 5, 2, 5, 5, 2 of the pool
    assert sorted(drawn[:12]) == sorted(drawn[12:]) == list(range(10, 22))
    assert drawn[:12] != drawn[12:]


def test_a_student_without_labels_learns() -> None:
    material = data(0, 20)
    packed = pack(model(0), [teacher(1)], material, packing(epochs=4), HOW)
    assert [epoch.steps for epoch in packed.epochs] == [4] * 4
    assert packed.epochs[-1].losses["kd"] < packed.epochs[0].losses["kd"]


def test_answers_of_clean_views_are_those_of_each_step() -> None:
    students = []
    for views in ("same", "clean"):
        students.append(model(0, dropout=0.0))
        pack(students[-1], [teacher(1), teacher(2)], data(), packing(views=views, losses="kd,cosine"), HOW)
    for name, value in named_tensors(students[0]).items():
        torch.testing.assert_close(named_tensors(students[1])[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("student", [{"dim": 16, "latents": 4}, {"dim": 64, "latents": 6}, {"layers": 3}])
def test_students_of_other_sizes(student: dict[str, int]) -> None:
    settings = packing(losses="kd,cosine,mse,sp,cka,ifalign,edu-attention", epochs=3)
    one = teacher(1)
    task = data().task.train
    one = replace(one, prototypes=prototypes_of(one.model, task.inputs, task.labels, 3, CPU))
    packed = pack(model(0, **student), [one], data(), settings, HOW)
    first, last = packed.epochs[0].losses, packed.epochs[-1].losses
    assert set(last) == {"cross-entropy", *settings.weighted}
    assert last["cosine"] < first["cosine"]


def test_a_teacher_of_another_modality_sees_twins() -> None:
    material = data(10, 12)
    own = model(1, modality="text")
    twins = Teacher("text", own, CLASSES, inputs=texts(22))
    packed = pack(model(0), [twins], material, packing(losses="kd,cosine,sp"), HOW)
    assert packed.epochs[0].agreement.keys() == {"text"}


def test_an_unpaired_teacher_teaches_distributions() -> None:
    strange = Teacher("text", model(1, modality="text"), ("x", "y", "z"), inputs=texts(9), paired=False, losses=("ifalign",))
    packed = pack(model(0), [strange, teacher(2)], data(), packing(losses="kd,ifalign", epochs=3), HOW)
    assert set(packed.epochs[0].losses) == {"cross-entropy", "kd", "ifalign"}
    assert packed.epochs[-1].losses["ifalign"] < packed.epochs[0].losses["ifalign"]
    assert packed.epochs[0].agreement.keys() == {"teacher-2"}


@pytest.mark.parametrize("disjoint", ["none", "teacher-head"])
def test_teachers_of_other_classes(disjoint: str) -> None:
    other = teacher(1, classes=("dog", "elk", "fox", "cat"))
    student = model(0)
    packed = pack(student, [other], data(), packing(losses="kd,sp", disjoint=disjoint, epochs=3), HOW)
    if disjoint == "none":
        assert set(packed.epochs[0].losses) == {"cross-entropy", "sp"}
        assert "1 classes in common" in packed.warnings[0]
    else:
        assert packed.epochs[-1].losses["kd"] < packed.epochs[0].losses["kd"]
    assert packed.epochs[0].agreement == {}


def test_only_classes_in_common_are_compared() -> None:
    partial = teacher(1, classes=("cat", "owl", "ant"))
    student = model(0)
    settings = packing(cross_entropy=0.0, epochs=15)
    pack(student, [partial], data(), settings, HOW)
    inputs = all_inputs(data(), settings)
    with torch.no_grad():
        own, other = student(inputs)[:, [0, 2]].softmax(dim=1), partial.model(inputs)[:, [2, 0]].softmax(dim=1)
        before = model(0)(inputs)[:, [0, 2]].softmax(dim=1)
    assert float((own - other).abs().mean()) < 0.5 * float((before - other).abs().mean())


def test_bfloat16_is_finite() -> None:
    material = data()
    material = replace(material, task=replace(material.task, precision="bfloat16"))
    packed = pack(model(0), [teacher(1)], material, packing(losses=EVERY_LATENT_LOSS), HOW)
    assert all(value >= 0 for epoch in packed.epochs for value in epoch.losses.values())


@pytest.mark.parametrize("name", ["perceiver-io", "perceiver", "beit3"])
def test_every_model_of_tokens(name: str) -> None:
    small = {"name": name, "dim": 32, "heads": 2, "cross_heads": 2, "layers": 2} | ({} if name == "beit3" else {"latents": 4})
    student, own = (tiny("image", num_classes=3, seed=seed, **small) for seed in (0, 1))
    packed = pack(student, [teacher(1, net=own)], data(), packing(losses="kd,sp,cosine", disjoint="teacher-head"), HOW)
    assert set(packed.epochs[0].losses) == {"cross-entropy", "kd", "sp", "cosine"}


def test_a_loss_that_is_not_finite_stops() -> None:
    broken = teacher(1)
    with torch.no_grad():
        broken.model.get_submodule("head").classifier.weight.fill_(float("inf"))  # type: ignore[union-attr, operator]
    for views, error in (("same", "training loss is nan"), ("clean", "NaN or infinite")):
        with pytest.raises(FloatingPointError, match=error):
            pack(model(0), [broken], data(), packing(views=views), HOW)


def test_settings_of_the_config_are_the_defaults_of_the_library() -> None:
    pack(model(0), [teacher(1)], data(), Packing(epochs=1))

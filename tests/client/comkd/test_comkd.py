"""The student's losses and what it is sent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from client import comkd, comkd_teacher
from client.comkd import Lesson, Student, receive, student_loss
from config import Clip
from strategies.protocol import Instruction, digest
from strategies.teacher_card import TEXT_FEATURES, TeacherCard
from tests.client.comkd.helpers import images, sent, small, small_teacher, write_clip

SETTINGS = Clip(**{"patch-size": 16, "student-width": 8, "student-layers": 1, "heads": 2, "width": 16})


def make_student(**settings) -> Student:
    torch.manual_seed(3)
    return Student(SETTINGS.model_copy(update=settings), 32, 16)


@pytest.fixture
def lesson() -> Lesson:
    return Lesson(*sent(small_teacher()))


def test_alpha_zero_is_plain_distillation_to_the_last_bit(lesson):
    """With and without EduAttention: one loss and one gradient, as long as alpha is 0; that of Hinton's by hand."""
    student, plain = make_student(), make_student(attention=False)
    assert student.attention.alpha == 0
    loss, kl, _ = student_loss(student, lesson, images(), 2.0, 0.0)
    other, _, _ = student_loss(plain, lesson, images(), 2.0, 0.0)
    assert torch.equal(loss, other)
    assert torch.equal(loss, kl)
    u, own = F.normalize(lesson.image(images()), dim=-1), F.normalize(plain.project(images()), dim=-1)
    w = F.normalize(lesson.texts, dim=-1)
    teacher, ours = (F.softmax(lesson.scale * one @ w.T / 2, dim=-1) for one in (u, own))
    by_hand = 4 * F.kl_div(ours.log(), teacher, reduction="batchmean")
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    other.backward()
    for (name, one), (_, two) in zip(student.projector.named_parameters(), plain.projector.named_parameters(), strict=True):
        assert torch.equal(one.grad, two.grad), name
    student.attention.alpha.data += 0.5
    assert not torch.equal(student_loss(student, lesson, images(), 2.0, 0.0)[0], other)


def test_projector_branch_and_alpha_learn_and_the_teacher_does_not(lesson):
    student = make_student()
    student_loss(student, lesson, images(), 1.0, 1.0)[0].backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in student.projector.parameters())
    assert student.image.projection.weight.grad.abs().sum() > 0
    assert student.attention.alpha.grad.abs() > 0
    assert not any(value.requires_grad for value in lesson.parameters())
    assert not lesson.training


def test_ifalign_alone_by_hand(lesson):
    student = make_student()
    loss, kl, align = student_loss(student, lesson, images(), 1.0, 3.0)
    own, u = student.project(images()), lesson.features(images())
    by_hand = (own.mean(0) - u.mean(0)).abs().sum() + (own.var(0, correction=0) - u.var(0, correction=0)).abs().sum()
    torch.testing.assert_close(align, by_hand)
    torch.testing.assert_close(loss, kl + 3 * by_hand)


def test_a_lesson_computes_what_its_teacher_does(lesson):
    teacher = small_teacher()
    expected = teacher.logits(teacher.image_features(images()), lesson.texts)
    torch.testing.assert_close(lesson.logits(lesson.features(images())), expected)


def test_what_came_is_kept_by_its_hash_and_read_again(tmp_path):
    card, arrays = sent(small_teacher())
    first = receive(card, arrays, tmp_path / "comkd")
    again = receive(card, {}, tmp_path / "without-student")
    torch.testing.assert_close(first.features(images()), again.features(images()), rtol=0, atol=0)
    with pytest.raises(ValueError, match="did not come, and are not here"):
        receive(dataclasses.replace(card, sha256="0" * 64), {}, tmp_path / "comkd")


def test_arrays_that_are_not_those_of_the_card_are_refused(tmp_path):
    card, arrays = sent(small_teacher())
    with pytest.raises(ValueError, match="the arrays have the hash"):
        receive(card, {**arrays, TEXT_FEATURES: arrays[TEXT_FEATURES] + 1}, tmp_path / "comkd")
    less = {name: value for name, value in arrays.items() if "pre_layrnorm" not in name}
    with pytest.raises(ValueError, match="came without"):
        receive(dataclasses.replace(card, sha256=digest(less)), less, tmp_path / "comkd")


def test_a_card_crosses_and_a_damaged_one_does_not():
    card, _ = sent(small_teacher())
    assert TeacherCard.from_json(card.to_json()) == card
    wrong = [{"sha256": "../x"}, {"base": 4}, {"base": 0}, {"logit_scale": float("nan")}, {"classes": ("cat",)}]
    for change in wrong:
        with pytest.raises(ValueError, match="a teacher's card is not one"):
            TeacherCard.from_json(dataclasses.replace(card, **change).to_json())
    with pytest.raises(ValueError, match="a teacher's card is not one"):
        TeacherCard.from_json("{}")


def test_clients_of_other_classes_are_refused():
    card, _ = sent(small_teacher())
    with pytest.raises(ValueError, match="stored text features of cat, dog, car, bus"):
        comkd.check_classes(card, ("dog", "cat", "car", "bus"))


def test_nobody_sees_a_novel_class_in_training(tmp_path, monkeypatch):
    """Every image that is trained on is, before it is changed, one of a base class of its client, and so is every text."""
    from client import training
    from client.learner import cached_client
    from data_partition.client_data import load_twins

    seen: list[torch.Tensor] = []
    read: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    monkeypatch.setattr(training, "augmented", lambda inputs, recipe, generator: seen.append(inputs) or inputs)
    frame = comkd_teacher.text_rows
    monkeypatch.setattr(comkd_teacher, "text_rows", lambda texts, *ends: read.append(texts) or frame(texts, *ends))
    classify = comkd_teacher.Study.classify
    monkeypatch.setattr(
        comkd_teacher.Study, "classify", lambda self, *given: labels.append(given[-1]) or classify(self, *given)
    )
    config = small(**{"data.augment": False})
    told = Instruction(0, "run", "token", "teacher", "hash", total_rounds=1)
    comkd_teacher.train(config, told, tmp_path / "0" / "teacher")
    card, arrays = comkd_teacher.publish(config, told, tmp_path / "0" / "teacher")
    assert torch.cat(labels).max() == card.base - 1 == 5
    by_client = {0: torch.cat(seen)}
    seen.clear()
    comkd.train(config, dataclasses.replace(told, partition_id=1), tmp_path / "1" / "comkd", card, arrays)
    by_client[1] = torch.cat(seen)
    for client, used in by_client.items():
        data = cached_client(config.data, client, 0.0)
        base = {image.numpy().tobytes() for image in data.train.inputs[data.train.labels < 6]}
        assert {image.numpy().tobytes() for image in used} == base
    data = cached_client(config.data, 0, 0.0)
    places, twins = load_twins(config.data, data.subgroup)
    known = {text.numpy().tobytes() for text in twins[data.train.labels[places] < 6]}
    assert {text.numpy().tobytes() for text in torch.cat(read)} == known


def test_the_published_text_features_are_those_of_the_clients_classes_in_order(tmp_path):
    config = small(**{"clip.pretrain-epochs": 0, "clip.prompt-epochs": 0})
    told = Instruction(0, "run", "token", "teacher", "hash")
    folder = tmp_path / "0" / "teacher"
    comkd_teacher.train(config, told, folder)
    card, arrays = comkd_teacher.publish(config, told, folder)
    teacher, speech = comkd_teacher.trained(config, told, folder), comkd_teacher.make_speech(config)
    for place, name in enumerate(card.classes):
        alone = teacher.text_features(speech.rows((name,), prompted=True))[0].numpy()
        np.testing.assert_allclose(arrays[TEXT_FEATURES][place], alone, rtol=1e-4, atol=1e-5)
    assert not any(name.startswith("text.") for name in arrays)
    assert {name: value.shape for name, value in arrays.items()} == card.shapes


def test_a_student_that_was_never_saved_is_not_made_up(tmp_path):
    card, _ = sent(small_teacher())
    told = Instruction(1, "run", "token", "comkd", "hash", round=2)
    with pytest.raises(ValueError, match="has no student from before round 2"):
        comkd.saved_student(small(), told, tmp_path / "comkd", card, 2)
    with pytest.raises(ValueError, match="has trained no teacher in this run"):
        comkd_teacher.trained(small(), told, tmp_path / "teacher")


def test_a_teacher_from_a_folder_stores_and_trains_its_prompts_alone(tmp_path):
    (tmp_path / "clip").mkdir()
    config = small(**{"clip.pretrained-dir": str(write_clip(tmp_path / "clip")), "clip.prompt-epochs": 1})
    told = Instruction(0, "run", "token", "teacher", "hash")
    comkd_teacher.train(config, told, tmp_path / "0" / "teacher")
    before = comkd_teacher.make_teacher(config, comkd_teacher.make_speech(config))
    after = comkd_teacher.trained(config, told, tmp_path / "0" / "teacher")
    changed = {
        name
        for (name, one), two in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(one, two)
    }
    assert changed == {name for name, _ in after.named_parameters() if name.endswith(".prompts")}
    assert len(changed) == 2
    saved = comkd_teacher.load_state(tmp_path / "0" / "teacher", "token", 2)
    assert set(saved) == changed
    card, arrays = comkd_teacher.publish(config, told, tmp_path / "0" / "teacher")
    assert (card.vision["side"], arrays[TEXT_FEATURES].shape) == (16, (12, 6))
    student = dataclasses.replace(told, partition_id=1, method="student")
    comkd.train(config, student, tmp_path / "1" / "comkd", card, arrays)
    assert 0 <= comkd.evaluate(config, student, tmp_path / "1" / "comkd", card, {})["base"] <= 1


def test_half_precision_on_the_wire_is_what_the_card_seals(tmp_path):
    config = small(**{"clip.pretrain-epochs": 0, "clip.prompt-epochs": 0, "strategy.wire-dtype": "float16"})
    told = Instruction(0, "run", "token", "teacher", "hash")
    comkd_teacher.train(config, told, tmp_path / "0" / "teacher")
    card, arrays = comkd_teacher.publish(config, told, tmp_path / "0" / "teacher")
    assert {value.dtype for value in arrays.values()} == {np.dtype("float16")}
    lesson = receive(card, arrays, tmp_path / "1" / "comkd")
    assert {value.dtype for value in lesson.state_dict().values()} == {torch.float32}

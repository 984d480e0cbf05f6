"""Three tasks with each method: what is forgotten, and what is learned."""

import pytest
import torch

from client.continual import cpg, ewc, finetune, packnet, piggyback
from client.continual.memory import ForgottenError, Memory, pack, task_model, unpack
from client.continual.ownership import claim_free, count_owned
from client.continual.train import Optimisation, train, validate
from tests.client.continual.helpers import Facts, changed, logits_of, separable, small

FAST = Optimisation(batch_size=5, learning_rate=5e-3, score_learning_rate=1e-3)
TASKS = (1, 2, 3)


def learn_with(method, model, memory, task, record, **options):
    """One task with small settings; options are those of ``learn``."""
    data, epochs = separable(task), 20
    if method is cpg:
        settings = cpg.CPGSettings(goal=0.5, train_epochs=epochs, ratios=(0.3, 0.6), prune_every=2, optimisation=FAST)
    elif method is packnet:
        settings = packnet.PackNetSettings(train_epochs=epochs, retrain_epochs=2, optimisation=FAST)
    elif method is piggyback:
        settings = piggyback.PiggybackSettings(train_epochs=epochs, optimisation=FAST)
    elif method is finetune:
        settings = finetune.FinetuneSettings(train_epochs=epochs, optimisation=FAST)
    else:
        settings = ewc.EWCSettings(train_epochs=epochs, optimisation=FAST, fisher_samples=10, strength=options.pop("strength"))
    return method.learn(model, memory, task, data, settings, record, **options)


def three_tasks(method, adapter="private"):
    """Learn three tasks; return the model, its memory, the facts, and the logits of all tasks after each."""
    model, memory, facts, logits = small(num_classes=3), Memory(adapter), Facts(), []
    for task in TASKS:
        learn_with(method, model, memory, task, facts)
        logits.append(logits_of(model, memory, "image"))
    return model, memory, facts, logits


@pytest.mark.parametrize("adapter", ["private", "first"])
@pytest.mark.parametrize("method", [cpg, packnet, piggyback])
def test_nothing_is_forgotten(method, adapter):
    model, memory, facts, logits = three_tasks(method, adapter)
    assert changed(logits[0], logits[1]) == changed(logits[1], logits[2]) == []
    for task in TASKS:
        plain = task_model(model, memory, task, verify=True)
        learned = validate(plain, plain, separable(task))
        last = [fact for fact in facts.seen if fact["task"] == task][-1]
        assert learned == last["validation"]
        assert learned > 0.6  # chance is 1/3


def test_finetuning_forgets_and_is_caught():
    model, memory, facts, logits = three_tasks(finetune)
    assert changed(logits[0], logits[1]) == [1]
    assert changed(logits[1], logits[2]) == [1, 2]
    for task in (1, 2):
        with pytest.raises(ForgottenError):
            task_model(model, memory, task)
    last = task_model(model, memory, 3)
    assert validate(last, last, separable(3)) == facts.seen[-1]["validation"] > 0.6
    assert all(name.startswith("head.") for record in memory.records.values() for name in record.private)
    loaded = small(num_classes=3, seed=5)
    remembered = unpack(loaded, *pack(model, memory))
    assert changed(logits[2], logits_of(loaded, remembered, "image")) == []


def distance(strength):
    """How far the weights of task 1 moved in task 2."""
    model, memory, anchors = small(num_classes=3), Memory(), {}
    learn_with(ewc, model, memory, 1, Facts(), anchors=anchors, strength=strength)
    first = anchors[1]
    learn_with(ewc, model, memory, 2, Facts(), anchors=anchors, strength=strength)
    assert list(anchors) == [1, 2]
    known = dict(model.named_parameters())
    assert not any(name.startswith("head.") for name in first.fisher)
    return sum((first.fisher[name] * (known[name] - old).square()).sum().item() for name, old in first.parameters.items())


def test_ewc_holds_what_matters():
    assert distance(1e6) < 0.5 * distance(0.0)
    with pytest.raises(ValueError, match=r"tasks \[1\] have no anchor"):
        learn_with(ewc, small(num_classes=3), Memory(records={1: None}), 2, Facts(), anchors={}, strength=1.0)


def test_ewc_without_strength_is_finetuning():
    same = []
    for method, options in ((finetune, {}), (ewc, {"anchors": {}, "strength": 0.0})):
        model, memory = small(num_classes=3), Memory()
        for task in (1, 2):
            learn_with(method, model, memory, task, Facts(), **options)
        same.append(logits_of(model, memory, "image"))
    assert changed(*same) == []


def test_packnet_prunes_once_and_uses_all_older_weights():
    model, memory, facts, _ = three_tasks(packnet)
    assert facts.events == ["train", "prune", "retrain"] * 3
    everything = sum(count_owned(model).values())
    assert facts.seen[0]["owned"] == everything
    assert facts.seen[1]["released"] == facts.seen[1]["free"] == pytest.approx(0.6 * everything, rel=0.01)
    assert facts.seen[3]["owned"] == facts.seen[1]["free"]
    for task in (2, 3):
        record = memory.records[task]
        assert torch.from_numpy(record.picks).int().eq(255).sum() >= record.pickable // 8


def test_packnet_without_a_free_weight_learns_private_tensors():
    model, memory, facts = small(num_classes=3), Memory(), Facts()
    learn_with(packnet, model, memory, 1, facts)
    claim_free(model, 1)  # by another hand
    memory.records.pop(1)
    learn_with(packnet, model, memory, 2, facts)
    assert "no-free-weights" in facts.events
    assert count_owned(model).keys() == {1}
    assert facts.seen[-1]["validation"] > 0.6


def test_piggyback_fixes_the_backbone_of_the_first_task():
    model, _, facts, _ = three_tasks(piggyback)
    assert count_owned(model).keys() == {1}
    assert facts.seen[0]["picked"] is None
    assert all(0.1 < fact["picked"] < 1 for fact in facts.seen[1:])


def test_a_loss_that_is_not_finite_is_named():
    model, data = small(num_classes=3), separable(1)
    data.train.inputs[:] = float("nan")
    with pytest.raises(FloatingPointError, match="the training loss is nan"):
        train(model, model, [{"params": list(model.parameters())}], data, FAST, epochs=1, generator=torch.Generator())


def test_augmentation_sees_training_examples_alone_and_the_order_is_seeded():
    model, data, seen = small(num_classes=3), separable(1), []

    def augment(inputs, generator):
        seen.append(inputs.sum().item())
        return inputs

    data = type(data)(data.train, data.val, augment, torch.ones(3))
    for _ in range(2):
        train(model, model, [{"params": list(model.parameters())}], data, FAST, epochs=2, generator=torch.Generator())
        validate(model, model, data)
    assert len(seen) == 12
    assert seen[:6] == seen[6:]
    assert seen[:3] != seen[3:6]

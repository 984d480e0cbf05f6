"""How a task is optimised: the default bit for bit, SGD beside Adam, and rates that fall in steps."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from client.continual import cpg, packnet, piggyback
from client.continual.memory import Memory, pack, task_model
from client.continual.ownership import claim_free, count_owned, ownable, owners
from client.continual.prune import prune
from client.continual.session import begin
from client.continual.train import Optimisation, TaskData, optimisation_of, train, validate
from client.training import batches
from config import Model, Train, parse
from data_partition.client_data import Split
from models.factory import build_model
from tests.client.continual.helpers import learn, separable, small

STEPS = {"optimizer": "sgd", "schedule": "steps", "clip_norm": 0.0, "weight_decay": 4e-5}


def second_session():
    """A session of a second task, with weights and picks, always the same."""
    model, memory = small(), Memory()
    learn(model, memory, 1, "image", steps=2)
    claim_free(model, 2)
    return begin(model, memory, 2)


def numbers(session):
    return [session.values, session.scores, *session.private.values()]


@pytest.mark.parametrize("decay", [True, False])
def test_the_default_is_fused_adamw_on_half_a_cosine_bit_for_bit(decay):
    how, data, weight = Optimisation(batch_size=4, clip_norm=0.5), separable(2), torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0])
    data = type(data)(data.train, data.val, None, weight)
    found, wanted = second_session(), second_session()
    groups = [session.parameter_groups(0.05, scores={"lr": 5e-4}) for session in (found, wanted)]
    torch.manual_seed(7)  # dropout
    train(found.model, found, groups[0], data, how, epochs=3, generator=torch.Generator().manual_seed(3), decay=decay)

    optimizer = torch.optim.AdamW(groups[1], lr=2e-3, fused=True)
    generator, step, total = torch.Generator().manual_seed(3), 0, 3 * 4
    wanted.model.train()
    torch.manual_seed(7)
    for _ in range(3):
        for inputs, labels in batches(data.train, 4, generator):
            for group, peak in zip(optimizer.param_groups, (2e-3, 2e-3, 5e-4), strict=True):
                group["lr"] = peak * (1 + math.cos(math.pi * step / total)) / 2 if decay else peak
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(wanted(inputs), labels, weight=weight).backward()
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 0.5)
            optimizer.step()
            step += 1
    assert all(torch.equal(*pair) for pair in zip(numbers(found), numbers(wanted), strict=True))


def test_rates_by_hand():
    weights, scores, alone = {}, {"scores_alone": False}, {"scores_alone": True}
    cosine, steps = Optimisation(), Optimisation(**STEPS)
    assert [cosine.rate(step, 4, scores) for step in range(4)] == pytest.approx([1, 0.8535534, 0.5, 0.1464466])
    assert [Optimisation(schedule="constant").rate(step, 4, scores) for step in range(4)] == [1.0] * 4
    cycle = [Optimisation(schedule="one-cycle").rate(step, 10, scores) for step in range(10)]
    assert cycle == pytest.approx([0.28, 0.76, 1.0, 0.9505, 0.8117, 0.6113, 0.3887, 0.1883, 0.0495, 0.0], abs=1e-4)
    assert [steps.rate(step, 10, weights) for step in range(10)] == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 2)
    assert [steps.rate(step, 10, scores) for step in range(10)] == [1] * 5 + [0.2] * 2 + [0] * 3
    assert [steps.rate(step, 10, alone) for step in range(10)] == [1] * 5 + [0.2] * 5


def test_scores_are_trained_by_adam_beside_sgd():
    """The first step of Adam is the rate, whatever the gradient; that of SGD with Nesterov momentum is 1.9 gradients."""
    session, data, seen = second_session(), separable(2), []
    before = [value.detach().clone() for value in numbers(session)]
    groups = session.parameter_groups(0.0, scores={"lr": 5e-4})
    how = Optimisation(batch_size=15, learning_rate=0.01, **{**STEPS, "weight_decay": 0.0})

    def after_step(step, optimizer):
        seen.append(optimizer)
        moved = [value.detach() - old for value, old in zip(numbers(session), before, strict=True)]
        strong = session.scores.grad.abs() > 1e-5
        assert strong.sum() > 100
        assert torch.allclose(moved[1][strong].abs(), torch.tensor(5e-4), rtol=5e-3)
        assert torch.equal(moved[1][strong] > 0, session.scores.grad[strong] < 0)
        assert torch.allclose(moved[0], -0.019 * session.values.grad, atol=1e-6)

    generator = torch.Generator().manual_seed(0)
    train(session.model, session, groups, data, how, epochs=1, generator=generator, after_step=after_step)
    assert [type(optimizer) for optimizer in seen] == [torch.optim.SGD]
    assert not any(session.scores is p for group in seen[0].param_groups for p in group["params"])


def test_the_gradient_is_clipped_over_both_optimizers():
    session, data = second_session(), separable(2)
    how = Optimisation(batch_size=15, **{**STEPS, "clip_norm": 1e-3})
    groups = session.parameter_groups(0.0, scores={"lr": 5e-4})
    train(session.model, session, groups, data, how, epochs=1, generator=torch.Generator())
    norm = torch.stack([value.grad.norm() for value in numbers(session) if value.grad is not None]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("free", [True, False])
def test_scores_stop_for_the_last_steps_unless_the_task_owns_no_weight(free):
    model, memory = small(), Memory()
    learn(model, memory, 1, "image", keep=0.5 if free else 1.0)
    assert bool(claim_free(model, 2)) == free
    session, moves = begin(model, memory, 2, empty=True), []
    before = session.scores.detach().clone()

    def after_step(step, optimizer):
        moves.append(not torch.equal(before, session.scores))
        before.copy_(session.scores.detach())

    groups = session.parameter_groups(4e-5, scores={"lr": 5e-4})
    how = Optimisation(batch_size=15, learning_rate=1e-2, **STEPS)
    train(model, session, groups, separable(2), how, epochs=10, generator=torch.Generator(), after_step=after_step)
    assert moves == [True] * 7 + [not free] * 3


def test_pruning_while_sgd_trains_cuts_its_momentum():
    session, sizes = second_session(), []

    def after_step(step, optimizer):
        before, positions = optimizer.state[session.values]["momentum_buffer"].clone(), session.layout.own
        prune(session, 0.2 * step, optimizer)
        kept = torch.isin(positions, session.layout.own)
        assert torch.equal(optimizer.state[session.values]["momentum_buffer"], before[kept])
        sizes.append(len(before))

    groups = session.parameter_groups(4e-5, scores={"lr": 5e-4})
    how = Optimisation(batch_size=15, **STEPS)
    train(session.model, session, groups, separable(2), how, epochs=3, generator=torch.Generator(), after_step=after_step)
    assert sizes[0] > sizes[1] > sizes[2] > len(session.values)


def enlarged(task):
    """Images of 32 x 32 pixels, for a convolutional network."""
    data = separable(task)
    large = [Split(one.inputs.repeat_interleave(2, 2).repeat_interleave(2, 3), one.labels) for one in (data.train, data.val)]
    return TaskData(*large)


@pytest.mark.parametrize("method", [cpg, packnet, piggyback], ids=["cpg", "packnet", "piggyback"])
def test_methods_learn_by_sgd_and_forget_nothing(method):
    how = Optimisation(batch_size=5, learning_rate=0.01, score_learning_rate=1e-3, **STEPS)
    later = {"retrain_learning_rate": 1e-3, "optimisation": how}
    if method is cpg:
        rates = {"prune_learning_rate": 1e-3, **later}
        settings = cpg.CPGSettings(goal=0.5, train_epochs=10, ratios=(0.3, 0.6), prune_every=2, **rates)
    elif method is packnet:
        settings = packnet.PackNetSettings(train_epochs=10, **later)
    else:
        settings = piggyback.PiggybackSettings(train_epochs=10, optimisation=how)
    model, memory = build_model(Model(name="lenet5", dropout=0.0), "image", 3, seed=0), Memory()
    first = {}
    for task in (1, 2):
        method.learn(model, memory, task, enlarged(task), settings)
        found = {done: task_model(model, memory, done, verify=True) for done in memory.records}
        assert validate(found[task], found[task], enlarged(task)) > 0.8  # chance is 1/3
        first[task] = found[1](enlarged(1).val.inputs)
    assert torch.equal(first[1], first[2])
    assert count_owned(model).get(0, 0) > 0 or method is piggyback
    assert all((weight[owners(model)[name] == 0] == 0).all() for name, weight in ownable(model).items())


def test_a_task_that_went_on_after_a_crash_has_the_same_settings(tmp_path):
    """Milestones are tuples here and lists in the checkpoint."""
    how = Optimisation(batch_size=5, **STEPS)
    settings = cpg.CPGSettings(goal=0.0, train_epochs=1, prune_epochs=1, retrain_epochs=1, ratios=(0.3,), optimisation=how)
    found = []
    for _ in range(2):
        model, memory = small(num_classes=3), Memory()
        cpg.learn(model, memory, 1, separable(1), settings, folder=tmp_path)
        found.append(pack(model, memory)[0])
    assert all((found[0][name] == found[1][name]).all() for name in found[0])
    other = cpg.CPGSettings(**{**vars(settings), "optimisation": Optimisation(batch_size=5, **{**STEPS, "momentum": 0.5})})
    with pytest.raises(ValueError, match="other settings"):
        cpg.learn(small(num_classes=3), Memory(), 1, separable(1), other, folder=tmp_path)


def test_the_run_config_says_how_tasks_are_optimised():
    assert optimisation_of(Train(), 5e-4) == Optimisation()
    keys = {"optimizer": "sgd", "momentum": 0.8, "schedule": "steps", "milestones": "0.25, 0.75", "milestone-factor": 0.5}
    other = {"batch-size": 7, "learning-rate": 0.3, "weight-decay": 0.2, "clip-norm": 0.0}
    config = parse({f"train.{key}": value for key, value in {**keys, **other}.items()})
    assert optimisation_of(config.train, 1e-3) == Optimisation(7, 0.3, 1e-3, 0.2, 0.0, "sgd", 0.8, "steps", (0.25, 0.75), 0.5)


def test_the_forward_passes_are_in_the_precision_of_the_data():
    seen = []

    def compute(inputs):
        seen.append((inputs.flatten(1)[:, :3] @ torch.eye(3)).dtype)
        return model(inputs)

    model, data = small(num_classes=3), separable(1)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        seen.clear()
        own, groups = replace(data, precision=precision), [{"params": list(model.parameters())}]
        train(model, compute, groups, own, Optimisation(), epochs=1, generator=torch.Generator())
        validate(model, compute, own)
        assert set(seen) == {dtype}
        assert len(seen) == 2

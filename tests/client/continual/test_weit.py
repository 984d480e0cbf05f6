"""FedWeIT: weights, loss and gradients by hand; three tasks; storage; other clients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from client.continual.train import Optimisation, validate
from client.continual.weit import (
    WeITSettings,
    adaptive,
    begin_task,
    finish,
    masked_base,
    resume,
    set_base,
    suspend,
    train_round,
)
from client.continual.weit_memory import (
    WeITState,
    density,
    stored_bytes,
    task_model,
    unpack,
    weight_of,
)
from strategies.averaging import weighted_mean
from tests.client.continual.helpers import separable
from tests.models.helpers import tiny

QUICK = Optimisation(batch_size=5, learning_rate=5e-3, weight_decay=1e-4)
FAST = WeITSettings(threshold=5e-3, optimisation=QUICK)
W = "backbone.weight"
BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


class Tiny(nn.Module):
    """Two linear layers; the weight of the first is the only one that is shared."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.backbone.weight.copy_(BASE)

    def forward(self, inputs):
        return self.head(self.backbone(inputs))


def small(**settings):
    return tiny("image", dim=32, latents=4, heads=2, cross_heads=2, layers=1, num_classes=3, **settings)


def write(parameter, values):
    with torch.no_grad():
        parameter.copy_(torch.tensor(values))


def learn(model, state, task, foreign=(), settings=FAST, data=None, rounds=4, epochs=5):
    """Learn a task by rounds; the state is written and read after each. Return A."""
    session = begin_task(model, state, task, foreign, settings)
    for server_round in range(rounds):
        train_round(session, data or separable(task), epochs=epochs, server_round=server_round)
        suspend(session, state)
        session = resume(model, state, settings)
    finish(session, state)
    return adaptive(session)


def logits_of(model, state, inputs):
    with torch.no_grad():
        return {task: task_model(model, state, task)(inputs) for task in state.tasks}


def accuracy(model, state, task):
    plain = task_model(model, state, task)
    return validate(plain, plain, separable(task))


def test_the_weight_by_hand():
    found = weight_of(
        BASE,
        mask=torch.tensor([0.5, 1.5]),  # clipped to 1
        adaptive=torch.tensor([[0.1, 0.0], [0.0, -0.2]]),
        alpha=torch.tensor([2.0, -1.0]),
        foreign=torch.stack([torch.eye(2), torch.ones(2, 2)]),
    )
    assert torch.allclose(found, torch.tensor([[1.6, 0.0], [2.0, 4.8]]))
    kernel = torch.ones(2, 3, 5, 5)
    found = weight_of(kernel, torch.tensor([0.0, 0.25]), torch.zeros_like(kernel), torch.zeros(0), torch.zeros(0, 2, 3, 5, 5))
    assert found.flatten(1).unique(dim=1).tolist() == [[0.0], [0.25]]


def second_task(settings):
    """Task 1 with m = (0.5, 1) and A = diag(0.1, -0.2); task 2 as it begins, with two foreign A."""
    model, state = Tiny(), WeITState()
    session = begin_task(model, state, 1, [], settings)
    write(session.mask[W], [0.5, 1.0])
    write(session.adaptive[W], [[0.1, 0.0001], [0.0, -0.2]])  # 0.0001 is below the threshold
    finish(session, state)
    foreign = [{W: np.eye(2, dtype=np.float32)}, {W: np.ones((2, 2), np.float32)}]
    return model, state, begin_task(model, state, 2, foreign, settings)


def test_the_session_computes_with_its_weight():
    model, state, session = second_task(FAST)
    assert torch.equal(state.tasks[1].adaptive[W], torch.tensor([[0.1, 0.0], [0.0, -0.2]]))
    assert torch.equal(session.weights()[W], BASE)  # every task begins with the base
    write(session.mask[W], [0.5, 1.5])
    write(session.adaptive[W], [[0.1, 0.0], [0.001, -0.2]])
    write(session.alpha[W], [2.0, -1.0])
    weight = torch.tensor([[1.6, 0.0], [2.0, 4.8]])
    assert torch.allclose(session.weights()[W], weight)
    inputs = torch.tensor([[1.0, -2.0]])
    expected = model.head(F.linear(inputs, weight, model.backbone.bias))
    assert torch.allclose(session(inputs), expected)
    assert torch.equal(model.backbone.weight, BASE)
    suspend(session, state)
    assert torch.equal(task_model(model, state, 2)(inputs), session(inputs))
    assert adaptive(session)[W].tolist() == np.array([[0.1, 0.0], [0.0, -0.2]], np.float32).tolist()
    assert masked_base(session)[W].tolist() == [[0.5, 1.0], [3.0, 4.0]]


def test_a_task_begins_with_the_base_whatever_the_start():
    session = begin_task(Tiny(), WeITState(), 1, [], WeITSettings(start=0.25))
    assert torch.equal(session.adaptive[W], BASE / 4)
    assert torch.equal(session.weights()[W], BASE)


def test_the_penalty_by_hand():
    _, _, session = second_task(WeITSettings(l1=0.1, drift=3.0))
    sparse = 0.1 * (2 * 1.0 + 0.1 + 0.2)  # m of task 2, and A of task 1
    assert session.penalty().item() == pytest.approx(sparse)
    write(session.base[W], [[1.1, 2.2], [3.3, 4.4]])
    write(session.earlier[1][W], [[0.11, 0.0], [0.0, -0.2]])
    write(session.adaptive[W], [[0.0, 1.0], [-1.0, 0.0]])
    moved = (0.5 * 0.1 + 0.01) ** 2 + (0.5 * 0.2) ** 2 + 0.3**2 + 0.4**2
    assert session.moved().item() == pytest.approx(moved, rel=1e-5)
    assert session.penalty().item() == pytest.approx(sparse + 0.1 * (0.01 + 2.0) + 3.0 * moved, rel=1e-5)


def test_gradients_reach_all_but_foreign_parameters_and_masks_of_earlier_tasks():
    _, state, session = second_task(FAST)
    write(session.base[W], [[1.1, 2.0], [3.0, 4.0]])
    (F.cross_entropy(session(torch.randn(3, 2)), torch.tensor([0, 1, 1])) + session.penalty()).backward()
    learned = [session.base, session.mask, session.adaptive, session.alpha, session.earlier[1], session.private]
    assert all(p.grad.count_nonzero() > 0 for part in learned for p in part.values())
    assert session.private.keys() == {"backbone.bias", "head.weight", "head.bias"}
    fixed = [session.foreign, session.earlier_masks[1], session.before.base, session.before.adaptive[1]]
    assert not any(value.requires_grad for part in fixed for value in part.values())
    assert session.model.backbone.weight.grad is None
    groups = session.parameter_groups(0.3)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert [len(group["params"]) for group in groups] == [2, 6]
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for part in learned for p in part.values()}
    assert len(state.foreign) == 2


def test_parameters_below_the_threshold_still_learn():
    session = begin_task(Tiny(), WeITState(), 1, [], FAST)
    write(session.adaptive[W], [[1e-3, 0.1], [0.1, 0.1]])
    weight = session.weights()[W]
    assert weight[0, 0] == 1.0
    assert weight[0, 1] == 2.1
    weight.sum().backward()
    assert session.adaptive[W].grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_three_tasks_are_learned_and_remembered_and_sparse():
    model, state = small(), WeITState()
    for task in (1, 2, 3):
        learn(model, state, task, rounds=10, epochs=5)
        assert accuracy(model, state, task) > 0.6  # chance is 1/3
        assert density([state.tasks[task].adaptive]) < 0.25
    assert all(accuracy(model, state, task) > 0.6 for task in (1, 2))
    assert stored_bytes(state) < 3 * 4 * sum(p.numel() for p in model.parameters())


def forgotten(drift):
    """How far the weights of task 1, and its logits, moved in task 2."""
    settings = WeITSettings(drift=drift, threshold=5e-3, optimisation=QUICK)
    model, state = small(), WeITState()
    learn(model, state, 1, settings=settings)
    inputs = separable(1).val.inputs
    logits = logits_of(model, state, inputs)[1]
    session = begin_task(model, state, 2, [], settings)
    train_round(session, separable(2), epochs=20, server_round=0)
    moved = session.moved().item()
    finish(session, state)
    assert accuracy(model, state, 2) > 0.6
    return moved, (logits_of(model, state, inputs)[1] - logits).square().mean().item()


def test_drift_holds_what_earlier_tasks_compute_with():
    free, held = forgotten(0.0), forgotten(100.0)
    assert held[0] < 0.01 * free[0]
    assert held[1] < 0.1 * free[1]


@pytest.mark.parametrize("start", [0.0, 1 / 3])
def test_sparsity_comes_from_the_price(start):
    found = {}
    for l1 in (0.0, 1e-3):
        model, state = small(), WeITState()
        learn(model, state, 1, settings=WeITSettings(l1=l1, start=start, threshold=5e-3, optimisation=QUICK), rounds=8)
        found[l1] = density([state.tasks[1].adaptive])
    assert found[1e-3] < 0.6 * found[0.0]


def test_clients_share_the_base_and_use_the_parameters_of_others():
    clients = [(small(), WeITState()) for _ in range(2)]
    sent = []
    for task in (1, 2):
        others = [sent[1:], sent[:1]]
        sessions = [
            begin_task(client[0], client[1], task, foreign, FAST) for client, foreign in zip(clients, others, strict=True)
        ]
        own = [{name: base.detach().clone() for name, base in session.base.items()} for session in sessions]
        for server_round in range(4):
            for client, session in enumerate(sessions):
                train_round(session, separable(2 * task + client), epochs=5, server_round=server_round)
            mean = weighted_mean((masked_base(session), 1.0) for session in sessions)
            for session in sessions:
                set_base(session, mean)
                assert all(np.array_equal(session.base[name].detach().numpy(), value) for name, value in mean.items())
        if task == 2:
            assert all(torch.equal(s.before.base[n], b) for s, o in zip(sessions, own, strict=True) for n, b in o.items())
            assert all(alpha.abs().max() > 0 for session in sessions for alpha in session.alpha.values())
        sent = [adaptive(session) for session in sessions]
        for (_, state), session in zip(clients, sessions, strict=True):
            finish(session, state)


def test_drift_counts_from_the_last_task_although_the_server_sends_a_base_between():
    model, state, session = second_task(FAST)
    finish(session, state)
    set_base(state, {W: np.ones((2, 2), np.float32)})
    set_base(state, {W: np.zeros((2, 2), np.float32)})
    third = begin_task(model, state, 3, [], FAST)
    assert torch.equal(third.base[W], torch.zeros(2, 2))
    assert torch.equal(third.before.base[W], BASE)
    state = WeITState()
    set_base(state, {W: np.ones((2, 2), np.float32)})
    assert state.before is None
    assert torch.equal(begin_task(model, state, 1, [], FAST).base[W], torch.ones(2, 2))


def test_what_does_not_fit_is_refused():
    model, state, session = second_task(FAST)
    with pytest.raises(ValueError, match=r"task 3 cannot begin: found \[1, 2\], unfinished 2"):
        begin_task(model, state, 3, [], FAST)
    with pytest.raises(ValueError, match="other names or shapes"):
        resume(small(), state, FAST)
    finish(session, state)
    with pytest.raises(ValueError, match="task 2 cannot begin"):
        begin_task(model, state, 2, [], FAST)
    with pytest.raises(ValueError, match="no task is unfinished"):
        resume(model, state, FAST)
    with pytest.raises(ValueError, match="task 5 is not known"):
        task_model(model, state, 5)
    for wrong, message in (
        ({}, "are missing or unknown"),
        ({W: np.ones((2, 3))}, r"has shape \(2, 3\), expected \(2, 2\)"),
        ({W: np.full((2, 2), np.nan)}, "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=f"foreign parameters 0: .*{message}"):
            begin_task(model, state, 3, [wrong], FAST)
        with pytest.raises(ValueError, match=f"the base: .*{message}"):
            set_base(state, wrong)
    assert state.unfinished == 0
    assert state.tasks.keys() == {1, 2}
    with pytest.raises(ValueError, match="nothing to share"):
        begin_task(nn.Sequential(), WeITState(), 1, [], FAST)
    with pytest.raises(ValueError, match="version 9"):
        unpack({}, {"version": 9})

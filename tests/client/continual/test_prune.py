import pytest
import torch
import torch.nn.functional as F

from client.continual.memory import Memory
from client.continual.ownership import claim_free, count_owned, ownable, owners
from client.continual.prune import cubic, prune, prune_once
from client.continual.session import begin, finish, write_back
from tests.client.continual.helpers import OPTIMIZERS, small
from tests.models.helpers import batch


def first_task():
    model, memory = small(), Memory()
    claim_free(model, 1)
    return model, memory, begin(model, memory, 1)


def free_of(model):
    return {name: int((owner == 0).sum()) for name, owner in owners(model).items()}


def test_cubic_by_hand():
    assert [cubic(step, 10, 20, 0.2, 0.9) for step in (0, 10, 20, 99)] == pytest.approx([0.2, 0.2, 0.9, 0.9])
    assert cubic(15, 10, 20, 0.2, 0.9) == pytest.approx(0.9 - 0.7 / 8)
    assert cubic(0, 0, 0, 0.0, 0.5) == 0.5


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.777, 1.0])
def test_counts_are_exact_in_every_layer_ties_or_not(ratio):
    model, _, session = first_task()
    with torch.no_grad():
        session.values[: len(session.values) // 2] = 0.25
    released = prune(session, ratio)
    expected = {name: round(ratio * weight.numel()) for name, weight in ownable(model).items()}
    assert free_of(model) == expected
    assert released == sum(expected.values()) == count_owned(model).get(0, 0)
    assert len(session.values) == count_owned(model).get(1, 0)
    assert prune(session, ratio) == 0


def test_the_share_is_of_own_and_free_weights_and_earlier_tasks_are_left_alone():
    model, memory, session = first_task()
    prune(session, 0.5)
    finish(session)
    claim_free(model, 2)
    second = begin(model, memory, 2)
    first = {name: owner == 1 for name, owner in owners(model).items()}
    prune(second, 0.25)
    prune(second, 0.5)
    for name, weight in ownable(model).items():
        candidates = weight.numel() - round(0.5 * weight.numel())
        assert free_of(model)[name] == round(0.5 * (weight.numel() - int(first[name].sum())))
        assert abs(int((owners(model)[name] == 2).sum()) - candidates / 2) <= 1
        assert torch.equal(owners(model)[name] == 1, first[name])


def test_once_is_a_share_of_what_the_task_owns_now():
    model, _, session = first_task()
    prune_once(session, 0.5)
    prune_once(session, 0.5)
    for name, weight in ownable(model).items():
        half = weight.numel() - round(0.5 * weight.numel())
        assert free_of(model)[name] == weight.numel() - (half - round(0.5 * half))


def test_the_smallest_go():
    model, _, session = first_task()
    sizes = {name: weight.detach().abs() for name, weight in ownable(model).items()}
    before = {name: size.clone() for name, size in sizes.items()}
    prune(session, 0.3)
    write_back(session)
    for name, owner in owners(model).items():
        assert before[name][owner == 0].max() <= before[name][owner == 1].min()
        assert (model.get_parameter(name)[owner == 0] == 0).all()
        assert torch.equal(model.get_parameter(name)[owner == 1].abs(), before[name][owner == 1])


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_momentum_goes_too_and_that_of_the_others_stays(kind):
    model, _, session = first_task()
    optimizer = OPTIMIZERS[kind](session.parameter_groups(0.1))

    def step():
        optimizer.zero_grad()
        F.cross_entropy(session(batch("image")), torch.arange(4)).backward()
        optimizer.step()

    step()
    key = "exp_avg" if kind == "adamw" else "momentum_buffer"
    before, weights = optimizer.state[session.values][key].clone(), session.values.detach().clone()
    positions = session.layout.own
    prune(session, 0.5, optimizer)
    kept = torch.isin(positions, session.layout.own)
    assert torch.equal(optimizer.state[session.values][key], before[kept])
    assert torch.equal(session.values.detach(), weights[kept])
    step()
    finish(session)
    assert all((model.get_parameter(name)[owner == 0] == 0).all() for name, owner in owners(model).items())
    assert not torch.equal(session.values.detach(), weights[kept])


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_ratio_out_of_range(ratio):
    _, _, session = first_task()
    for how in (prune, prune_once):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            how(session, ratio)

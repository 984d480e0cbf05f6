"""Buffers that stay: whatever the order of passes, weights and gradients are those of buffers made anew."""

import pytest
import torch

from client.continual import assemble
from client.continual.memory import Memory
from client.continual.ownership import claim_free
from client.continual.prune import prune
from client.continual.session import begin, write_back
from tests.client.continual.helpers import inputs_of, learn, small


def second_task(name="lenet5"):
    model, memory = small(name), Memory()
    learn(model, memory, 1, "image")
    claim_free(model, 2)
    model.eval()
    return begin(model, memory, 2)


def loss_of(session, seed=1):
    return session(inputs_of(session.model, "image", seed=seed)).square().mean()


def gradients(session, *seeds):
    """Gradients of the sum of losses, each from a session of its own, copied."""
    total = [torch.zeros_like(session.values), torch.zeros_like(session.scores)]
    for seed in seeds:
        found = torch.autograd.grad(loss_of(session, seed), [session.values, session.scores])
        total = [a + b for a, b in zip(total, found, strict=True)]
    return total


def close(session, expected):
    return all(torch.allclose(p.grad, e, atol=1e-7) for p, e in zip((session.values, session.scores), expected, strict=True))


@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_the_size_of_a_part_changes_no_bit(size, monkeypatch):
    results = []
    for part in (assemble.PART, size):
        monkeypatch.setattr(assemble, "PART", part)
        session = second_task()
        loss_of(session).backward()
        prune(session, 0.4)
        results.append([session.values.grad is None, session.values.detach(), session.scores.grad, loss_of(session).detach()])
        assert len(session.layout.parts) == (4 if part == 1 else 3 if part == 1000 else 1)
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1:], results[1][1:], strict=True))


@pytest.mark.parametrize("size", [1, 10**9])
def test_two_passes_forward_before_one_backward(size, monkeypatch):
    monkeypatch.setattr(assemble, "PART", size)
    session = second_task()
    expected = gradients(session, 1, 2)
    assert expected[0].abs().max() > 0
    first = loss_of(session, 1)
    with torch.no_grad():
        loss_of(session, 3)
    (first + loss_of(session, 2)).backward()
    assert close(session, expected)


def test_gradients_add_up_until_they_are_set_to_none():
    session = second_task()
    expected = gradients(session, 1, 2)
    for seed in (1, 2):
        loss_of(session, seed).backward()
    assert close(session, expected)
    session.values.grad = session.scores.grad = None
    loss = loss_of(session, 1)
    loss.backward(retain_graph=True)
    loss.backward()
    assert close(session, [2 * gradient for gradient in gradients(session, 1)])


def test_the_second_pass_backward_after_a_change_is_refused():
    session = second_task()
    loss = loss_of(session, 1)
    loss.backward(retain_graph=True)
    loss_of(session, 2)
    with pytest.raises(RuntimeError, match="modified"):
        loss.backward()


def test_values_with_other_data_are_read():
    session = second_task()
    before = loss_of(session).detach()
    session.values.data = session.values.detach() + 0.01  # a task begins with zeros
    changed = loss_of(session).detach()
    assert not torch.equal(before, changed)
    with torch.no_grad():
        session.values -= 0.01
    assert torch.equal(loss_of(session).detach(), before)


def test_a_layer_that_computes_nothing_has_no_gradient(monkeypatch):
    monkeypatch.setattr(assemble, "PART", 1)
    session = second_task()
    loss_of(session).backward()
    last = session.layout.parts[-1]
    assert session.values.grad[last.values].abs().max() > 0
    session.values.grad = session.scores.grad = None
    session.model.backbone.blocks[3].linear.forward = lambda inputs: inputs[:, :84]
    loss_of(session).backward()
    assert (session.values.grad[last.values] == 0).all()
    assert (session.scores.grad[last.scores] == 0).all()
    assert session.values.grad.abs().max() > 0


def test_a_pruned_session_computes_as_a_new_one():
    session = second_task()
    with torch.no_grad():
        session.values += torch.rand(session.values.shape, generator=torch.Generator().manual_seed(0)) / 50
        prune(session, 0.5)
    write_back(session)
    again = begin(session.model, session.memory, 2)
    assert torch.equal(session.values, again.values)
    assert torch.equal(loss_of(session), loss_of(again))
    assert torch.equal(session.layout.source, again.layout.source)
    assert torch.equal(session.layout.own, again.layout.own)

import pytest
import torch
import torch.nn.functional as F

from client.continual.memory import Memory, install, put_back, task_model
from client.continual.ownership import claim_free, effective_weights, owners, private_names
from client.continual.session import PICK_INIT, begin, finish, in_place_of_parameters, write_back
from tests.client.continual.helpers import changed, learn, logits_of, small
from tests.models.helpers import batch


def second_task(**settings):
    model, memory = small(**settings), Memory()
    learn(model, memory, 1, "image")
    claim_free(model, 2)
    return model, memory, begin(model, memory, 2)


def test_gradients_reach_own_weights_and_picks_of_earlier_ones_alone():
    model, _, session = second_task()
    own = owners(model)
    assert len(session.values) == sum(int((owner == 2).sum()) for owner in own.values())
    assert len(session.scores) == sum(int((owner == 1).sum()) for owner in own.values())
    assert (session.scores == PICK_INIT).all()
    inputs, labels = batch("image"), torch.arange(4)
    model.eval()
    F.cross_entropy(session(inputs), labels).backward()
    assert not any(model.get_parameter(name).grad is not None for name in own)

    weights = {name: value.requires_grad_() for name, value in effective_weights(model, 2).items()}
    loss = F.cross_entropy(torch.func.functional_call(model, weights, (inputs,)), labels)
    grads = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    values = torch.cat([grads[name][own[name] == 2] for name in own])
    scores = torch.cat([(grads[name] * model.get_parameter(name).detach())[own[name] == 1] for name in own])
    assert torch.allclose(session.values.grad, values, atol=1e-7)
    assert torch.allclose(session.scores.grad, scores, atol=1e-7)
    assert scores.abs().max() > 0


def test_a_pick_below_the_threshold_takes_its_weight_out():
    model, _, session = second_task()
    model.eval()
    with torch.no_grad():
        session.scores[::2] = 0.0
        expected = effective_weights(model, 2, session.picks())
        found = session(batch("image"))
        assert torch.equal(found, torch.func.functional_call(model, expected, (batch("image"),)))
    assert 0 < session.picks().sum() < len(session.picks())


def test_picks_change_and_some_stay():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    picks = learn(model, memory, 2, "image").picks()
    assert 0.2 < picks.float().mean() < 0.99


def test_a_forward_leaves_parameters_alone_even_if_it_fails():
    model, _, session = second_task()
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(RuntimeError):
        session(torch.zeros(1, 5, 16, 16))
    session(batch("image"))
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    layer = session.layers[0]
    assert "weight" not in layer.__dict__
    with in_place_of_parameters([layer], [torch.zeros(1)]):
        assert layer.weight.shape == (1,)
    assert layer.weight is dict(layer.named_parameters())["weight"]


def test_tied_layers_train_and_stay():
    model, memory = small(tie_layers=True), Memory()
    learn(model, memory, 1, "image")
    before = logits_of(model, memory, "image")
    learn(model, memory, 2, "image")
    assert changed(before, logits_of(model, memory, "image")) == []


def test_write_back_writes_the_task_s_weights_alone():
    model, _, session = second_task()
    own = owners(model)
    before = {name: model.get_parameter(name).detach().clone() for name in own}
    with torch.no_grad():
        session.values += 1.0
    write_back(session)
    for name, owner in own.items():
        moved = model.get_parameter(name) != before[name]
        assert torch.equal(moved, owner == 2)


def test_scores_carry_over_to_a_retraining():
    model, memory, session = second_task()
    with torch.no_grad():
        session.scores[:10] = 0.0
    finish(session)
    again = begin(model, memory, 2, session.scores)
    assert torch.equal(again.picks(), session.picks())
    with pytest.raises(ValueError, match="found 3 scores"):
        begin(model, memory, 2, torch.zeros(3))


def test_tasks_come_in_order_and_own_something():
    model, memory, session = second_task()
    finish(session)
    with pytest.raises(ValueError, match="task 2 came after it"):
        begin(model, memory, 1)
    with pytest.raises(ValueError, match="task 3 owns no weight"):
        begin(model, memory, 3)


def test_each_task_has_a_head_of_its_own_width():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    wider = small(num_classes=7)
    head = {name: value for name, value in wider.named_parameters() if name.startswith("head.")}
    install(model, head)
    learn(model, memory, 2, "image")
    assert [logits.shape[1] for logits in logits_of(model, memory, "image", verify=True).values()] == [5, 7]
    put_back(model, memory, 1)
    mine = memory.records[1].private
    assert all(torch.equal(model.state_dict()[name], mine[name]) for name in private_names(model))
    with pytest.raises(ValueError, match="'nothing' is unknown"):
        install(model, {"nothing": torch.zeros(1)})


def test_weight_decay_spares_vectors_and_scores():
    _, _, session = second_task()
    decayed, vectors, scores = session.parameter_groups(0.3, scores={"lr": 0.5})
    assert decayed["params"][0] is session.values
    assert {p.ndim for p in decayed["params"][1:]} >= {2}
    assert {p.ndim for p in vectors["params"]} == {1}
    assert (vectors["weight_decay"], scores["weight_decay"], scores["lr"]) == (0.0, 0.0, 0.5)
    assert len(session.private) == sum(len(group["params"]) for group in (decayed, vectors)) - 1


def test_an_unknown_task_is_named():
    model, memory, _ = second_task()
    with pytest.raises(ValueError, match=r"task 7 is not known: found \[1\]"):
        task_model(model, memory, 7)

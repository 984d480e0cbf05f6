"""CPG: every way through its states, and the same bits after a crash at any of them."""

import dataclasses

import numpy as np
import pytest
import torch

from client.continual import checkpoint, packnet
from client.continual.cpg import CPGSettings, learn
from client.continual.grow import widths
from client.continual.memory import Memory, pack, task_model
from client.continual.ownership import count_owned
from client.continual.train import Optimisation
from models.storage import StorageError
from tests.client.continual.helpers import Facts, KilledError, changed, logits_of, separable, small

QUICK = Optimisation(batch_size=8, learning_rate=5e-3, score_learning_rate=5e-3)
TINY = CPGSettings(
    goal=0.0,
    train_epochs=1,
    prune_epochs=1,
    prune_every=1,
    ratios=(0.2, 0.4, 0.6),
    retrain_epochs=1,
    optimisation=QUICK,
    growth_step=0.5,
)


def settings(**changes):
    return dataclasses.replace(TINY, **changes)


class Script:
    """Validations in the order in which they are asked for; 1.0 when there is no more."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, session, data):
        return self.values.pop(0) if self.values else 1.0


def one_task(script, task=1, model=None, memory=None, **changes):
    """Learn one task whose validations are scripted; return facts, model, memory."""
    facts, memory = Facts(), Memory() if memory is None else memory
    model = small(num_classes=3) if model is None else model
    learn(model, memory, task, separable(task), settings(**changes), facts, decide=Script(*script))
    assert facts.seen[-1]["next"] == "done"
    return facts, model, memory


def of(facts, event):
    return [fact for fact in facts.seen if fact["event"] == event]


def tensors(model, memory):
    arrays, facts = pack(model, memory)
    return {name: value.copy() for name, value in arrays.items()}, facts


def same(first, second):
    return first[1] == second[1] and all(np.array_equal(first[0][name], second[0][name]) for name in first[0])


# One growth to the cap, a goal that is not met, and all ratios. What a state finds out is given before the state itself.
EVENTS = ["begin", "train", "grow", "goal-not-met", "train", "prune", "prune", "prune", "choose", "retrain"]


def scripted_by_state(session, data):
    return 0.3


def every_state(folder, survive=None):
    """Task 2 after a task 1; returns the facts, and the tensors at the end."""
    model, memory = small(num_classes=3), Memory()
    packnet.learn(model, memory, 1, separable(1), packnet.PackNetSettings(1, 1, optimisation=QUICK))
    facts = Facts(survive)
    options = {"folder": folder, "decide": scripted_by_state}
    learn(model, memory, 2, separable(2), settings(goal=0.9), facts, **options)
    return facts, tensors(model, memory)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return every_state(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("survive", range(len(EVENTS)), ids=lambda i: f"{i}-{EVENTS[i]}")
def test_killed_at_any_transition_it_ends_with_the_same_bits(survive, undisturbed, tmp_path):
    whole, expected = undisturbed
    assert whole.events == EVENTS
    folder = tmp_path / "run"
    with pytest.raises(KilledError):
        every_state(folder, survive)
    torch.manual_seed(survive)  # another process: nothing may depend on its random state
    model, memory, facts = small(num_classes=3, seed=9), Memory(), Facts()
    learn(model, memory, 2, separable(2), settings(goal=0.9), facts, folder=folder, decide=scripted_by_state)
    assert same(tensors(model, memory), expected)
    assert facts.seen == whole.seen[-len(facts.seen) :]
    assert len(facts.seen) in (len(EVENTS) - survive, len(EVENTS) - survive + 1)  # a note is given again with its state


def test_killed_at_every_transition_in_turn(undisturbed, tmp_path):
    _, expected = undisturbed
    model, memory = small(num_classes=3), Memory()
    packnet.learn(model, memory, 1, separable(1), packnet.PackNetSettings(1, 1, optimisation=QUICK))
    for attempt in range(30):
        facts = Facts(survive=2)
        try:
            options = {"folder": tmp_path, "decide": scripted_by_state}
            learn(model, memory, 2, separable(2), settings(goal=0.9), facts, **options)
            break
        except KilledError:
            model, memory = small(num_classes=3, seed=attempt), Memory()
    assert 3 <= attempt < 29
    assert same(tensors(model, memory), expected)


def test_a_checkpoint_that_is_done_damaged_or_of_other_settings(tmp_path):
    model, memory = small(num_classes=3), Memory()
    learn(model, memory, 1, separable(1), TINY, folder=tmp_path)
    expected = tensors(model, memory)
    again, remembered, facts = small(num_classes=3, seed=4), Memory(), Facts()
    assert learn(again, remembered, 1, separable(1), TINY, facts, folder=tmp_path).state == "done"
    assert facts.seen == []
    assert same(tensors(again, remembered), expected)
    with pytest.raises(ValueError, match=r"task 1 in .* has other settings \(goal, seed\)"):
        learn(again, remembered, 1, separable(1), settings(goal=0.1, seed=3), folder=tmp_path)
    (last,) = tmp_path.glob("*.safetensors")
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    with pytest.raises(StorageError, match="damaged"):
        learn(again, remembered, 1, separable(1), TINY, folder=tmp_path)


def test_checkpoints_of_other_tasks_stay(tmp_path):
    for step in (0, 1, 10):
        checkpoint.save(tmp_path, 1, step, {"w": np.ones(1) * step}, {})
    checkpoint.save(tmp_path, 11, 3, {"w": np.zeros(1)}, {})
    assert (checkpoint.steps(tmp_path, 1), checkpoint.steps(tmp_path, 11)) == ([10], [3])
    assert checkpoint.load(tmp_path, 1)[0]["w"] == 10
    assert checkpoint.load(tmp_path, 2) is None


def test_facts_are_complete_and_in_order():
    facts, model, _ = one_task([0.8, 0.9, 0.8, 0.7, 0.9], goal=0.8)
    assert facts.events == ["begin", "train", "prune", "prune", "prune", "choose", "retrain"]
    assert [fact["next"] for fact in facts.seen] == [*facts.events[1:], "done"]
    needed = {"state", "next", "task", "stage", "ratio", "validation", "growths", "owned", "free", "width"}
    assert all(needed <= fact.keys() for fact in facts.seen)
    assert [fact["validation"] for fact in facts.seen] == [None, 0.8, 0.9, 0.8, 0.7, 0.8, 0.9]
    assert [fact["stage"] for fact in of(facts, "prune")] == [0, 1, 2]
    everything = sum(count_owned(model).values())
    assert all(fact["owned"] + fact["free"] == everything for fact in facts.seen)
    freed = [fact["free"] / everything for fact in facts.seen]
    assert freed == pytest.approx([0, 0, 0.2, 0.4, 0.6, 0.4, 0.4], abs=0.01)


@pytest.mark.parametrize(
    ("script", "goal", "grown"),
    [
        ([0.8], 0.8, 0),  # met
        ([0.75], 0.8, 0),  # by less than epsilon
        ([0.73, 0.8], 0.8, 1),
        ([0.1, 0.1, 0.8], 0.8, 2),
        ([0.1] * 9, 0.8, 2),  # the cap: 1.5, then 2 times the widths
    ],
)
def test_it_grows_if_and_only_if_the_goal_is_missed(script, goal, grown):
    model = small(num_classes=3)
    start = widths(model)
    facts, model, memory = one_task(script, model=model, goal=goal, epsilon=0.06, growth_cap=2.0)
    assert len(of(facts, "grow")) == grown
    assert widths(model) == {name: round(units * (1 + 0.5 * grown)) for name, units in start.items()}
    assert memory.base == start
    assert [fact["growths"] for fact in of(facts, "train")] == list(range(grown + 1))
    assert len(of(facts, "goal-not-met")) == (len(script) == 9)


def test_the_cap_holds_over_all_tasks():
    model, memory = small(num_classes=3), Memory()
    start = widths(model)
    for task in (1, 2):
        before = logits_of(model, memory, "image")
        facts, *_ = one_task([0.1] * 9, task, model, memory, goal=0.8, growth_cap=1.7)
        assert len(of(facts, "grow")) == (2 if task == 1 else 0)  # 1.5, then 1.7 times
        assert changed(before, logits_of(model, memory, "image", verify=True)) == []
    assert all(start[name] < units <= 1.7 * start[name] for name, units in widths(model).items())


def test_growth_keeps_what_was_trained():
    seen = []

    def watch(session, data):
        session.model.eval()
        with torch.no_grad():
            seen.append(session(data.val.inputs))
        return 0.1

    options = {"growth_cap": 1.5, "goal": 0.8, "ratios": ()}
    model, memory = small(num_classes=3), Memory()
    learn(model, memory, 1, separable(1), settings(**options), decide=watch)
    fixed = Optimisation(batch_size=8, learning_rate=0.0)
    learn(model, memory, 2, separable(2), settings(**options, optimisation=fixed), decide=watch)
    before, after = seen[0], seen[1]
    assert not torch.equal(before, after)  # trained again, wider
    seen.clear()
    model, memory = small(num_classes=3), Memory()
    still = {"optimisation": fixed, "retrain_learning_rate": 0.0}
    learn(model, memory, 1, separable(1), settings(**options, **still), decide=watch)
    assert len(seen) == 3
    assert torch.allclose(seen[0], seen[1], atol=1e-5)  # not trained: growth alone


@pytest.mark.parametrize(
    ("script", "chosen", "stages"),
    [
        ([0.8, 0.8, 0.8, 0.8], 0.6, 3),
        ([0.8, 0.8, 0.8, 0.79], 0.4, 3),
        ([0.8, 0.79, 0.8, 0.79], 0.4, 3),  # below the goal, above the tolerance: a later stage may recover
        ([0.8, 0.8, 0.77], 0.2, 2),  # below the tolerance: no further stage
        ([0.8, 0.77], 0.0, 1),
        ([0.9, 0.82, 0.81, 0.8], 0.6, 3),  # counted from the goal, not from what was reached
        ([0.5, 0.5, 0.49, 0.48], 0.6, 3),  # the goal was never met: counted from the unpruned validation
        ([0.5, 0.5, 0.47], 0.2, 2),
        ([0.5, 0.6, 0.4], 0.2, 2),
        ([0.5, 0.4], 0.0, 1),
    ],
)
def test_the_largest_ratio_that_meets_the_goal_is_chosen(script, chosen, stages):
    facts, model, _ = one_task([*script, 1.0], goal=0.8, tolerance=0.021, growth_step=0.0, retrain_epochs=0)
    assert len(of(facts, "prune")) == stages
    (choice,) = of(facts, "choose")
    assert choice["ratio"] == chosen
    assert choice["validation"] == script[round(chosen / 0.2)]
    everything = sum(count_owned(model).values())
    assert choice["free"] == count_owned(model).get(0, 0) == pytest.approx(chosen * everything, rel=0.01)
    assert len(of(facts, "goal-not-met")) == (script[0] < 0.8)


@pytest.mark.parametrize(("script", "chosen"), [([0.5, 0.5, 0.49, 0.48], 0.6), ([0.5, 0.49, 0.47], 0.2), ([0.5, 0.4], 0.0)])
def test_without_a_goal_it_never_grows_and_keeps_what_it_has(script, chosen):
    facts, *_ = one_task([*script, 1.0], goal=None, tolerance=0.021, growth_cap=2.0, retrain_epochs=0)
    assert facts.events == ["begin", "train", *["prune"] * (len(script) - 1), "choose", "retrain"]
    assert of(facts, "choose")[0]["ratio"] == chosen


@pytest.mark.parametrize(
    ("script", "least", "chosen", "stages"),
    [
        ([0.8, 0.1, 0.1, 0.1], 0.0, 0.0, 1),
        ([0.8, 0.1, 0.1, 0.1], 0.1, 0.2, 1),  # the first ratio that is not below
        ([0.8, 0.1, 0.1, 0.1], 0.2, 0.2, 1),
        ([0.8, 0.1, 0.1, 0.1], 0.3, 0.4, 2),
        ([0.8, 0.1, 0.8, 0.1], 0.1, 0.2, 1),
        ([0.8, 0.8, 0.1, 0.1], 0.1, 0.2, 2),
        ([0.8, 0.8, 0.8, 0.1], 0.5, 0.6, 3),
        ([0.5, 0.1, 0.1, 0.1], 0.3, 0.4, 2),  # the goal was never met
        ([0.8, 0.1, 0.1, 0.1], 1.0, 0.6, 3),  # as far as the ratios go
    ],
)
def test_what_later_tasks_need_is_freed_in_any_case(script, least, chosen, stages):
    facts, *_ = one_task([*script, 1.0], goal=0.8, least_ratio=least, growth_step=0.0, retrain_epochs=0)
    assert len(of(facts, "prune")) == stages
    (choice,) = of(facts, "choose")
    assert choice["ratio"] == chosen
    assert len(of(facts, "pruned-below-goal")) == (choice["validation"] < min(0.8, script[0]) and chosen > 0)


def test_it_goes_back_to_the_tensors_of_the_ratio():
    seen = []

    def watch(session, data):
        session.model.eval()
        with torch.no_grad():
            seen.append(session(data.val.inputs))
        return [0.8, 0.8, 0.8, 0.1, 0.1][len(seen) - 1]

    model, memory = small(num_classes=3), Memory()
    learn(model, memory, 1, separable(1), settings(goal=0.8), decide=watch)
    with torch.no_grad():
        found = task_model(model, memory, 1)(separable(1).val.inputs)
    assert torch.equal(found, seen[2])
    assert not any(torch.equal(found, seen[i]) for i in (0, 1, 3, 4))


@pytest.mark.parametrize(("last", "accepted"), [(0.79, False), (0.8, True), (0.9, True)])
def test_retraining_that_makes_it_worse_is_not_kept(last, accepted):
    model, memory = small(num_classes=3), Memory()
    one_task([1.0], model=model, memory=memory)
    kept = {}
    for epochs in (0, 1):
        ours, remembered, facts = small(num_classes=3), Memory(), Facts()
        learn(ours, remembered, 1, separable(1), settings(goal=0.8), decide=Script(*[0.8] * 5))
        options = {"decide": Script(0.8, 0.8, 0.8, 0.8, last)}
        learn(ours, remembered, 2, separable(2), settings(goal=0.8, retrain_epochs=epochs), facts, **options)
        kept[epochs] = tensors(ours, remembered)
        (fact,) = of(facts, "retrain")
        assert (fact["accepted"], fact["retrained"], fact["validation"]) == (accepted, last, max(last, 0.8))
    assert same(kept[0], kept[1]) == (not accepted)


def test_picks_are_learned_in_training_and_retraining_and_kept_in_pruning():
    model, memory, seen = small(num_classes=3), Memory(), []
    one_task([1.0], model=model, memory=memory)

    def watch(session, data):
        seen.append((session.scores.requires_grad, session.scores.detach().clone()))
        return 1.0

    learn(model, memory, 2, separable(2), TINY, decide=watch)
    assert [learned for learned, _ in seen] == [True, False, False, False, True]
    scores = [value for _, value in seen]
    assert all(torch.equal(scores[0], value) for value in scores[1:4])
    assert 0 < (scores[4] - scores[0]).abs().max() < 5 * TINY.retrain_score_learning_rate


@pytest.mark.parametrize("cap", [1.0, 1.5])
def test_without_a_free_weight(cap):
    """Learned by picks, private tensors and head; growth brings weights, if the goal asks for it."""
    model, memory = small(num_classes=3), Memory()
    one_task([1.0], model=model, memory=memory, ratios=())
    assert count_owned(model).keys() == {1}
    before = logits_of(model, memory, "image")
    facts, *_ = one_task([0.1] * 9, 2, model, memory, goal=0.8, growth_cap=cap)
    none = ["begin", "goal-not-met", "train", "choose", "retrain"]
    grown = ["begin", "train", "grow", "goal-not-met", "train", "prune", "prune", "prune", "choose", "retrain"]
    assert facts.events == ["no-free-weights", *(grown if cap > 1 else none)]
    assert (2 in count_owned(model)) == (cap > 1)
    after = logits_of(model, memory, "image", verify=True)
    assert changed(before, after) == []
    assert len(after) == 2


def test_tasks_come_in_order_and_settings_are_checked():
    _, model, memory = one_task([1.0], task=2)
    with pytest.raises(ValueError, match="task 2 came after it"):
        learn(model, memory, 1, separable(1), TINY)
    for changes in ({"ratios": (0.5, 0.4)}, {"ratios": (1.0,)}):
        with pytest.raises(ValueError, match="found ratios"):
            settings(**changes)
    with pytest.raises(ValueError, match=r"found a growth cap of 0\.5"):
        settings(growth_cap=0.5)


def test_the_global_random_state_is_as_before():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one_task([1.0])
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_seed_ends_with_other_bits():
    results = [tensors(*one_task([1.0], seed=seed)[1:]) for seed in (0, 0, 1)]
    assert same(results[0], results[1])
    assert not same(results[0], results[2])

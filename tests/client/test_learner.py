import numpy as np
import pytest

from client.joint import train_jointly
from client.learner import evaluate, make_learner, train
from config import parse
from data_partition.streams import load_task
from models.arrays import get_arrays
from models.groups import shared_names
from strategies.protocol import Instruction

CONFIG = parse({"train.epochs": 1})


def told(**fields):
    return Instruction(0, "run", "token", "federated", "hash", share="backbone", **fields)


def shared_like(learner, dtype=np.float32):
    rng = np.random.default_rng(0)
    arrays = get_arrays(learner.model, shared_names(learner.model, "backbone"))
    return {name: rng.normal(size=value.shape).astype(dtype) for name, value in arrays.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_came_is_what_the_client_works_with(tmp_path, dtype):
    first = make_learner(CONFIG, told(), tmp_path, {}, 1)
    train(first, {})
    came = shared_like(first, dtype)
    second = make_learner(CONFIG, told(round=2), tmp_path, came, 2)
    for name, value in second.shared().items():
        assert np.array_equal(value, came[name].astype(np.float32))


def test_its_own_tensors_are_those_it_saved(tmp_path):
    first = make_learner(CONFIG, told(), tmp_path, {}, 1)
    train(first, {})
    saved = first.model.adapter.front.embed.weight.detach().clone()
    stranger = make_learner(CONFIG, told(), tmp_path / "another", {}, 1)
    assert not (stranger.model.adapter.front.embed.weight == saved).all()
    second = make_learner(CONFIG, told(round=2), tmp_path, shared_like(stranger), 2)
    assert (second.model.adapter.front.embed.weight == saved).all()


def test_a_private_model_is_not_the_one_that_others_use(tmp_path):
    common = make_learner(CONFIG, told(), tmp_path, {}, 1)
    assert make_learner(CONFIG, told(), tmp_path, {}, 1).model is common.model
    assert make_learner(CONFIG, told(), tmp_path, {}, 1, private=True).model is not common.model


def test_a_wrong_shape_names_the_tensor(tmp_path):
    with pytest.raises(ValueError, match=r"backbone\.latents.*found shape \(1,\), expected \(8, 64\)"):
        make_learner(CONFIG, told(), tmp_path, {"backbone.latents": np.zeros(1, np.float32)}, 1)


def test_the_run_decides_in_which_precision_a_client_evaluates(tmp_path):
    configs = [parse({"train.precision": precision}) for precision in ("float32", "float32", "bfloat16")]
    first, again, half = (evaluate(make_learner(config, told(), tmp_path, {}, 1))["loss"] for config in configs)
    assert first == again
    assert 0 < abs(first - half) < 0.05


@pytest.mark.parametrize("jointly", [False, True])
def test_penalised_columns_close(tmp_path, jointly):
    found = []
    for penalty in (0.0, 1.0):
        settings = {"model.k-penalty": penalty, "model.k-warmup": 0.0, "model.k-learning-rate": 0.1}
        config = parse({"train.epochs": 1, "model.adaptive-k": "prefix", **settings})
        learner = make_learner(config, told(), tmp_path / str(penalty), {}, 1, private=True)
        if jointly:
            train_jointly(config, [learner], {0: tmp_path / f"joint-{penalty}"}.__getitem__)
        else:
            train(learner, {})
        found.append(learner.model.adapter.gate.fraction.item())
    assert found[1] < found[0] - 0.1


def test_the_instruction_names_the_task(tmp_path):
    config = parse({"train.epochs": 1, "data.tasks-per-client": 4})
    found = []
    for task in range(4):
        learner = make_learner(config, told(task=task), tmp_path / str(task), {}, 1)
        expected = load_task(config.data, 0, task)
        assert learner.data.subgroup == expected.subgroup
        assert (learner.data.test.inputs == expected.test.inputs).all()
        assert learner.num_classes == 3
        assert np.isfinite(train(learner, {})["loss"])
        found.append(evaluate(learner)["num-examples"])
    assert found == [len(load_task(config.data, 0, task).val) for task in range(4)]

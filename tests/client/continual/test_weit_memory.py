"""FedWeIT on disk: every model, finished or not, goes on with the same bits; what is stored, by hand."""

import numpy as np
import pytest
import torch

from client.continual.train import TaskData
from client.continual.weit import begin_task, finish, resume, suspend, train_round
from client.continual.weit_memory import WeITState, pack, parameters_stored, stored_bytes, task_model, unpack
from config import Model
from data_partition.client_data import Split
from models.factory import build_model
from models.storage import load_record, save_record
from tests.client.continual.helpers import CASES, WIDTHS, changed
from tests.client.continual.test_weit import FAST, W, learn, logits_of, second_task
from tests.models.helpers import batch, tiny


def make(name, modality, seed=0):
    if name in WIDTHS:
        return build_model(Model(name=name, width=WIDTHS[name]), "image", 5, seed=seed)
    return tiny(modality, name=name, dim=32, latents=4, heads=2, cross_heads=2, layers=1, seed=seed)


def inputs_of(name, modality, size=6, seed=1):
    if name in WIDTHS:
        return torch.rand(size, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return batch(modality, size, seed)


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_every_model_goes_on_from_the_disk_with_the_same_bits(name, modality, tmp_path):
    model, state, probe = make(name, modality), WeITState(), inputs_of(name, modality, seed=9)
    data = {t: TaskData(s := Split(inputs_of(name, modality, seed=t), torch.arange(6) % 5), s) for t in (1, 2)}
    first = learn(model, state, 1, data=data[1], rounds=2, epochs=2)
    foreign = [{n: -value for n, value in first.items()}]
    session = begin_task(model, state, 2, foreign, FAST)
    train_round(session, data[2], epochs=2, server_round=0)
    suspend(session, state)
    assert state.unfinished == 2
    model.train()
    tensors = list(model.state_dict(keep_vars=True).values())
    untouched = [value.detach().clone() for value in tensors]
    task_model(model, state, 1)
    assert model.training
    assert all(torch.equal(now, then) for now, then in zip(tensors, untouched, strict=True))
    logits = logits_of(model, state, probe)

    save_record(tmp_path / "state", *pack(state))
    loaded = unpack(*load_record(tmp_path / "state"))
    other = make(name, modality, seed=7)
    frozen = {n: v for n, v in model.state_dict().items() if n.startswith("frozen.")}
    other.load_state_dict(frozen, strict=False)
    assert changed(logits, logits_of(other, loaded, probe)) == []
    again = resume(other, loaded, FAST)
    other.eval()
    with torch.no_grad():
        assert torch.equal(again(probe), logits[2])

    losses = []
    for one, its_model, its_state in ((resume(model, state, FAST), model, state), (again, other, loaded)):
        losses.append(train_round(one, data[2], epochs=1, server_round=1))
        finish(one, its_state)
        assert its_state.unfinished == 0
        assert its_state.before is None
        assert stored_bytes(its_state) == sum(array.nbytes for array in pack(its_state)[0].values())
        logits = logits if one is again else logits_of(its_model, its_state, probe)
    assert losses[0] == losses[1]
    assert changed(logits, logits_of(other, loaded, probe)) == []
    finished = unpack(*pack(loaded))
    assert changed(logits, logits_of(make(name, modality), finished, probe)) == []


def test_what_is_stored_by_hand():
    model, state, session = second_task(FAST)
    task = 2 + 6 + 2  # mask, head, bias of the backbone
    begun = 4 + task + 2 + (task + 2) + (2 + 4) + (4 + 2)  # base; task 1 and its A; task 2 and alpha; foreign; before
    assert parameters_stored(state) == begun
    positions = 1 + 1 + 2 + 1  # one byte for each A: of two tasks, two foreign ones, before
    assert stored_bytes(state) == 4 * begun + positions
    finish(session, state)
    assert parameters_stored(state) == begun - (4 + 2)
    third = begin_task(model, state, 3, [{W: np.eye(2, dtype=np.float32)}], FAST)
    assert len(state.foreign) == 2  # it is there already
    assert third.foreign[W].shape == (1, 2, 2)

import numpy as np
import pytest
import torch

from client.continual.memory import Memory, count_pickable, pack, pack_owners, stored_bytes, unpack, unpack_owners
from client.continual.ownership import claim_free, owners
from client.continual.session import begin, finish
from models.storage import save_record
from tests.client.continual.helpers import learn, small


@pytest.mark.parametrize("adapter", ["private", "first"])
def test_storage_is_one_model_and_a_bit_per_pick_and_private_tensors(tmp_path, adapter):
    model, memory = small(modality="text"), Memory(adapter)
    for task in (1, 2, 3):
        learn(model, memory, task, "text")
    for task, record in memory.records.items():
        assert record.pickable == count_pickable(model, task)
        assert record.picks.nbytes == -(-record.pickable // 8)
    found = stored_bytes(model, memory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(owner.numel() for owner in owners(model).values())
    private = {task: sum(value.nbytes for value in record.private.values()) for task, record in memory.records.items()}
    assert found.model == 4 * parameters
    free = [weights - count_pickable(model, task) for task in (1, 2, 3)]
    assert found.masks == sum(-(-count // 8) for count in [*free, *(weights - count for count in free)])
    assert found.masks <= 3 * (weights / 8 + 2)  # a bit per weight and task, and the bytes that are not full
    assert found.private == sum(private.values())
    embedding = model.adapter.front.embed.weight.nbytes
    assert (private[2] <= private[1] - embedding) == (adapter == "first")
    arrays, facts = pack(model, memory)
    assert sum(array.nbytes for array in arrays.values()) == found.total
    save_record(tmp_path / "state", arrays, facts)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= found.total + 200 * len(arrays) + 2000


def test_a_task_costs_less_than_a_second_backbone():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    before = stored_bytes(model, memory)
    learn(model, memory, 2, "image")
    after = stored_bytes(model, memory)
    assert after.model == before.model
    assert after.masks - before.masks <= sum(owner.numel() for owner in owners(model).values()) / 8 + 2


def test_owners_are_stored_by_hand():
    model = small()
    first = next(iter(owners(model).values()))
    first.view(-1)[:6] = torch.tensor([2, 1, 0, 3, 1, 2])
    packed = pack_owners(model)
    assert packed.keys() == {1, 2, 3}
    assert [np.unpackbits(bits, count=6 - found).tolist() for bits, found in zip(packed.values(), (0, 2, 4), strict=True)] == [
        [0, 1, 0, 0, 1, 0],
        [1, 0, 0, 1],
        [0, 1],
    ]
    before = [owner.clone() for owner in owners(model).values()]
    for owner in owners(model).values():
        owner.fill_(9)
    unpack_owners(model, packed)
    assert all(torch.equal(*pair) for pair in zip(before, owners(model).values(), strict=True))
    with pytest.raises(ValueError, match="bytes of owners of task 1"):
        unpack_owners(model, {1: packed[1][:-1]})


def test_picks_are_stored_by_hand():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    session = learn(model, memory, 2, "image")
    record = memory.records[2]
    assert np.array_equal(np.unpackbits(record.picks, count=record.pickable), session.picks().numpy())
    assert memory.records[1].picks.size == 0


def test_what_does_not_fit_is_refused():
    model, memory = small(), Memory()
    learn(model, memory, 1, "image")
    arrays, facts = pack(model, memory)
    with pytest.raises(ValueError, match="version 9"):
        unpack(small(), arrays, facts | {"version": 9})
    short = {name: array for name, array in arrays.items() if name != "model.backbone.latents"}
    for wrong in (short, short | {"model.backbone.latents": np.zeros((9, 9), np.float32)}):
        with pytest.raises(ValueError, match=r"backbone\.latents.*other settings"):
            unpack(small(), wrong, facts)
    with pytest.raises(ValueError, match="no seam"):
        unpack(small("beit3"), arrays, facts)


def test_a_bfloat16_model_comes_back():
    model, memory = small().to(torch.bfloat16), Memory()
    claim_free(model, 1)
    finish(begin(model, memory, 1))
    arrays, facts = pack(model, memory)
    assert sum(array.nbytes for array in arrays.values()) == stored_bytes(model, memory).total
    loaded = small(seed=3).to(torch.bfloat16)
    remembered = unpack(loaded, arrays, facts)
    assert remembered.records[1].digest == memory.records[1].digest
    for name, value in memory.records[1].private.items():
        assert torch.equal(value, remembered.records[1].private[name])

import pytest
import torch

from benchmarks.continual import data, masked_step, plain_step, session_of
from client.continual.ownership import count_owned


@pytest.mark.parametrize("modality", ["image", "text"])
def test_contestants_run(modality):
    plain_step(modality)()
    masked_step(modality, 3)()
    session = session_of(modality, 3)
    total = sum(count_owned(session.model).values())
    assert count_owned(session.model) == {1: total // 2, 2: total // 4, 3: total // 4}
    assert session(data(modality)[0]).shape == (32, 12)
    assert torch.get_num_threads() >= 1

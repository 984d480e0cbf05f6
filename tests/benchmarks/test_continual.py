import pytest
import torch

from benchmarks.continual import CASES, data, masked_step, plain_step, session_of
from client.continual.ownership import count_owned


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.modality)  # the last is too large for a test
def test_contestants_run(case):
    plain_step(case)()
    masked_step(case, 3)()
    session = session_of(case, 3)
    total = sum(count_owned(session.model).values())
    assert count_owned(session.model) == {1: total // 2, 2: total // 4, 3: total // 4}
    assert session(data(case)[0]).shape == (32, 12)
    assert torch.get_num_threads() >= 1

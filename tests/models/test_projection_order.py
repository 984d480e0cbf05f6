"""The cosine projection multiplies in the cheaper order, and the order does not change what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.low_rank import columns_first, project

R, D, N, B = 64, 128, 256, 1


def macs(mix_RK: Tensor, x_BND: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        rows_BKD = project(x_BND, mix_RK, None, (N,))
        if mix_RK.requires_grad:
            rows_BKD.sum().backward()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("training", [False, True])
def test_fewer_columns_never_cost_more(training: bool) -> None:
    x_BND = torch.randn(B, N, D, requires_grad=training)
    costs = [
        macs(torch.randn(R, columns, requires_grad=training), x_BND) for columns in (1, 8, 16, 24, 31, 36, 48, 60, 63, 64)
    ]
    assert costs == sorted(costs)
    assert costs[2] < costs[-1] / 2


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("columns", [5, 40, 64])
def test_order_does_not_change_the_rows(columns: int, padding: bool) -> None:
    torch.manual_seed(0)
    mix_RK, x_BND = torch.randn(R, columns, requires_grad=True) / 8, torch.randn(3, 20, D)
    mask_BN = torch.arange(20) < torch.tensor([[20], [7], [1]]) if padding else None
    with_grad = project(x_BND, mix_RK, mask_BN, (20,))
    with torch.no_grad():
        without = project(x_BND, mix_RK, mask_BN, (20,))
    torch.testing.assert_close(with_grad.detach(), without, rtol=0, atol=1e-5)
    assert columns != 40 or columns_first(40, R, D, training=False) != columns_first(40, R, D, training=True)

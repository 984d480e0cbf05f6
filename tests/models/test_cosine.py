"""The cosine basis: hand-computed numbers, orthonormality, padding."""

from __future__ import annotations

import math

import pytest
import torch

from models.cosine import cosine_basis, frequency_order, masked_basis
from models.low_rank import project

CPU = torch.device("cpu")


def basis(grid: tuple[int, ...], rank: int) -> torch.Tensor:
    return cosine_basis(grid, rank, torch.float64, CPU)


def test_two_tokens_by_hand() -> None:
    # sqrt(1/2) for the mean; sqrt(2/2) cos(pi/4), cos(3 pi/4) for the half period; two tokens carry no more.
    half = math.sqrt(0.5)
    expected = torch.tensor([[half, half], [half, -half], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(basis((2,), 3), expected)


def test_image_basis_is_separable_and_ordered_by_frequency() -> None:
    assert frequency_order(6) == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]
    rows, columns = basis((3,), 3), basis((5,), 3)
    for r, (u, v) in enumerate(frequency_order(6)):
        torch.testing.assert_close(basis((3, 5), 6)[r].view(3, 5), rows[u][:, None] * columns[v][None])


@pytest.mark.parametrize("rank", [1, 7, 16, 100])
def test_frequency_order_is_complete_and_nested(rank: int) -> None:
    pairs = frequency_order(rank)
    largest = max(u * u + v * v for u, v in pairs)
    smaller = {(u, v) for u in range(40) for v in range(40) if u * u + v * v < largest}
    assert smaller <= set(pairs)
    assert frequency_order(rank + 5)[:rank] == pairs


@pytest.mark.parametrize("grid", [(1,), (5,), (24,), (400,), (8, 8), (4, 4), (3, 7)])
def test_rows_are_orthonormal_or_zero(grid: tuple[int, ...]) -> None:
    gram = basis(grid, 16) @ basis(grid, 16).T
    present = gram.diagonal() > 0.5
    torch.testing.assert_close(gram, torch.diag(present.double()), rtol=0, atol=1e-12)
    if len(grid) == 1:
        assert present.sum() == min(16, grid[0])


@pytest.mark.parametrize("rank", [4, 16])
def test_masked_basis_is_the_basis_of_each_length(rank: int) -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1]]).bool()
    found = masked_basis(mask, rank, torch.float64)
    for row, length in ((0, 3), (1, 5), (3, 3)):
        torch.testing.assert_close(found[row][mask[row]].T, basis((length,), rank))
    assert torch.equal(found[~mask], torch.zeros_like(found[~mask]))


@pytest.mark.parametrize("masked", [False, True])
def test_projection_is_the_dense_product(masked: bool) -> None:
    torch.manual_seed(0)
    x, mix = torch.randn(2, 6, 3), torch.randn(4, 4)
    mask = torch.ones(2, 6, dtype=torch.bool) if masked else None
    dense = cosine_basis((6,), 4, torch.float32, CPU).T @ mix
    torch.testing.assert_close(project(x, mix, mask, (6,)), torch.einsum("nk,bnd->bkd", dense, x))


def test_basis_made_in_inference_mode_can_be_trained_through() -> None:
    cosine_basis.cache_clear()
    x = torch.randn(2, 6, 3)
    mix = torch.randn(4, 4, requires_grad=True)
    with torch.inference_mode():
        project(x, mix, None, (6,))
    project(x.requires_grad_(), mix, None, (6,)).sum().backward()
    assert mix.grad is not None

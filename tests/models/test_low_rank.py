"""The forms of the low-rank projection: numbers by hand, algebra, padding, lengths."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.cosine import cosine_basis
from models.groups import Group, group_names, named_tensors
from models.low_rank import (
    Form,
    Projection,
    Sharing,
    dense_keys_values,
    dense_rows,
    keep_columns,
    make_projection,
    mixing_matrix,
    pool_rows,
    pool_shape,
    project,
    pyramid,
    spread_order,
)
from tests.models.helpers import MODALITIES, batch, tiny

CPU = torch.device("cpu")
FORMS = tuple(form for form in get_args(Form) if form != "none")
AGNOSTIC = ("basis", "pool")
SHARINGS = get_args(Sharing)


def made(form: str, rank: int = 4, length: int = 12, sharing: str = "headwise") -> Projection:
    torch.manual_seed(0)
    projection = make_projection(form, rank, length=length, heads=2, sharing=sharing)
    assert projection is not None
    return projection


def to_kv(seed: int = 1) -> partial[Tensor]:
    return partial(F.linear, weight=torch.randn(2 * 6, 5, generator=torch.Generator().manual_seed(seed)))


def test_spread_order_halves_again_and_again() -> None:
    assert spread_order(1) == [0]
    assert spread_order(6) == [0, 3, 1, 4, 2, 5]
    for count in (7, 16, 33):
        order = spread_order(count)
        assert sorted(order) == list(range(count))
        half = sorted(order[: count // 2])
        assert max(b - a for a, b in itertools.pairwise(half)) <= 3


def test_pyramid_begins_with_the_coarse_levels() -> None:
    mix = pyramid(16, top=2)
    for start, level in ((0, 2), (2, 4), (6, 8)):
        own = mix[:, start : start + level]
        assert torch.equal(own[:level, spread_order(level).index(1)], mixing_matrix(level)[:, 1])
        assert not own[level:].any()
    assert mix.shape == (16, 16)
    assert torch.equal(mix[:, 14], mixing_matrix(16)[:, 0])


@pytest.mark.parametrize("k", [1, 3, 8, 11, 20])
def test_a_prefix_of_the_pyramid_sees_every_token(k: int) -> None:
    seen = (cosine_basis((24,), 32, torch.float32, CPU).T @ pyramid(32)[:, :k]).norm(dim=1)
    narrow = (cosine_basis((24,), 32, torch.float32, CPU).T @ mixing_matrix(32)[:, :k]).norm(dim=1)
    assert seen.min() > 0.2 > narrow.min()


def test_small_pyramid_is_one_level() -> None:
    assert torch.equal(pyramid(5, top=8), mixing_matrix(5)[:, spread_order(5)])


def test_initial_mixing_matrix_gives_the_sequence_itself() -> None:
    x = torch.randn(2, 7, 3)
    torch.testing.assert_close(project(x, mixing_matrix(7), None, (7,)), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("columns", [2, 4])
def test_basis_is_the_dense_product_in_either_order(masked: bool, columns: int) -> None:
    torch.manual_seed(0)
    x, mix = torch.randn(2, 6, 3), torch.randn(4, columns)
    mask = torch.ones(2, 6, dtype=torch.bool) if masked else None
    dense = cosine_basis((6,), 4, torch.float32, CPU).T @ mix
    torch.testing.assert_close(project(x, mix, mask, (6,)), torch.einsum("nk,bnd->bkd", dense, x))


def test_dense_rows_by_hand() -> None:
    weight = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [5.0, 5.0]])
    x = torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]])
    assert dense_rows(x, weight, None).flatten().tolist() == [5021.0, 5310.0]
    # Two tokens of four: the first two rows of E, times sqrt(4 / 2).
    short = [math.sqrt(2) * value for value in (21.0, 10.0)]
    torch.testing.assert_close(dense_rows(x[:, :2], weight, None).flatten(), torch.tensor(short))
    mask = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(dense_rows(x, weight, mask).flatten(), torch.tensor(short))


def test_dense_before_is_dense_with_one_matrix() -> None:
    before, after = made("dense-before"), made("dense", sharing="key-value")
    assert before.weight.shape == (12, 4)
    assert after.weight.shape == (1, 1, 12, 4)
    x, mask = torch.randn(3, 9, 5), torch.rand(3, 9) < 0.7
    mask[:, 0] = True
    torch.testing.assert_close(before(x, to_kv(), mask, (9,)), after(x, to_kv(), mask, (9,)))


def test_sharing_says_how_many_matrices_there_are() -> None:
    shapes = {sharing: tuple(made("dense", sharing=sharing).weight.shape[:2]) for sharing in SHARINGS}
    assert shapes == {"none": (2, 2), "headwise": (2, 1), "key-value": (1, 1), "layerwise": (1, 1)}


def test_each_head_and_value_has_its_own_matrix() -> None:
    torch.manual_seed(0)
    kv, weight = torch.randn(2, 5, 2 * 6), torch.randn(2, 2, 5, 3)  # 2 heads of 3 channels
    found = dense_keys_values(kv, weight, None, heads=2).view(2, 3, 2, 2, 3)
    for part in range(2):
        for head in range(2):
            own = kv.view(2, 5, 2, 2, 3)[:, :, part, head]
            torch.testing.assert_close(found[:, :, part, head], weight[part, head].T @ own)


def test_pool_by_hand() -> None:
    x = torch.arange(1.0, 8.0).view(1, 7, 1)
    assert pool_rows(x, 3, None, (7,)).flatten().tolist() == [2.0, 4.0, 6.0]  # 1-3, 3-5, 5-7
    image = torch.arange(16.0).view(1, 16, 1)
    assert pool_rows(image, 4, None, (4, 4)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_shape(8, (8, 8)) in ((2, 4), (4, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("length", [1, 3, 9])
def test_padding_changes_nothing(form: str, sharing: str, length: int) -> None:
    projection = made(form, sharing=sharing)
    x = torch.randn(2, length, 5)
    alone = projection(x, to_kv(), None, (length,))
    padded = F.pad(x, (0, 0, 0, 12 - length), value=7.0)
    mask = (torch.arange(12) < length).expand(2, -1)
    torch.testing.assert_close(projection(padded, to_kv(), mask, (12,)), alone, rtol=0, atol=1e-5)
    longer = torch.cat([padded, torch.randn(1, 12, 5)])
    mask = torch.cat([mask, torch.ones(1, 12, dtype=torch.bool)])
    torch.testing.assert_close(projection(longer, to_kv(), mask, (12,))[:2], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", AGNOSTIC)
def test_length_agnostic_forms_take_any_length(form: str) -> None:
    projection = made(form, length=12)
    for length in (1, 12, 100):
        assert projection(torch.randn(2, length, 5), to_kv(), None, (length,)).shape == (2, 4, 12)
    constant = torch.ones(1, 400, 5)  # beyond any length: of a constant each row is a multiple of it
    rows = projection(constant, lambda x: x, None, (20, 20))
    torch.testing.assert_close(rows, rows[..., :1].expand_as(rows))


@pytest.mark.parametrize("form", ["dense", "dense-before"])
def test_dense_forms_refuse_more_tokens_than_rows(form: str) -> None:
    with pytest.raises(ValueError, match="input of 13 tokens, but the dense projection has 12 rows"):
        made(form)(torch.randn(2, 13, 5), to_kv(), None, (13,))


@pytest.mark.parametrize("form", ["dense", "dense-before"])
def test_more_rows_than_tokens_are_refused(form: str) -> None:
    with pytest.raises(ValueError, match="rank = 13 is above N = 12"):
        made(form, rank=13)


@pytest.mark.parametrize("form", ["basis", "dense", "dense-before"])
def test_kept_columns_are_the_same_rows(form: str) -> None:
    projection = made(form)
    x = torch.randn(2, 12, 5)
    before = projection(x, to_kv(), None, (12,))
    keep_columns(projection, [0, 3])
    torch.testing.assert_close(projection(x, to_kv(), None, (12,)), before[:, [0, 3]], rtol=0, atol=1e-5)


def test_pool_has_no_columns_to_remove() -> None:
    with pytest.raises(ValueError, match="no columns"):
        keep_columns(made("pool"), [0])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_all_stages(modality: str, form: str, sharing: str) -> None:
    model = tiny(modality, form, rank=4, stages="all", sharing=sharing)
    inputs = batch(modality, 8)
    F.cross_entropy(model(inputs), torch.arange(8) % 5).backward()
    unreached = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unreached == []
    projections = [name for name in named_tensors(model) if ".projection." in name]
    if form == "pool":
        assert projections == []
        return
    groups = [Group(name.partition(".")[0]) for name in projections]
    # The encoder's is shared only if its shape is the same for all inputs; the latents' always is.
    encoder = Group.BACKBONE if form == "basis" else Group.ADAPTER
    latent = [Group.BACKBONE] * (1 if sharing == "layerwise" else 2)
    assert sorted(groups) == sorted([encoder, *latent, Group.HEAD])


@pytest.mark.parametrize("form", FORMS)
def test_all_stages_do_not_see_padding(form: str) -> None:
    model = tiny("text", form, rank=4, stages="all").eval()
    ids = batch("text")
    torch.testing.assert_close(model(F.pad(ids, (0, 2))), model(ids), rtol=0, atol=1e-5)


def test_backbone_of_dense_forms_is_the_same_for_every_modality() -> None:
    image, *others = (tiny(modality, "dense", rank=4, stages="all") for modality in MODALITIES)
    names = group_names(image, Group.BACKBONE)
    for other in others:
        assert names == group_names(other, Group.BACKBONE)
        assert all(torch.equal(named_tensors(image)[name], named_tensors(other)[name]) for name in names)


def test_tied_layers_are_one_set_of_weights() -> None:
    tied, free = tiny("image", tie_layers=True, layers=3), tiny("image", layers=3)
    assert sum("layers.1" in name or "layers.2" in name for name in named_tensors(tied)) == 0
    assert sum("layers.0" in name for name in named_tensors(tied)) == sum("layers.2" in name for name in named_tensors(free))
    assert [latents.shape for latents in tied.trace(batch("image")).latents] == [(4, 8, 64)] * 4

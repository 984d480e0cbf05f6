"""Cross-attention of shared queries, against numbers worked out by hand."""

from __future__ import annotations

import math

import torch

from models.attention import cross_attend, merge_heads, self_attend, split_heads


def test_one_head_by_hand() -> None:
    # Scores are q k / sqrt(d) = 0 and ln 3, so the weights are 1/4 and 3/4.
    q = torch.tensor([[1.0]])
    kv = torch.tensor([[[0.0, 4.0], [math.log(3.0), 8.0]]])
    torch.testing.assert_close(cross_attend(q, kv, heads=1), torch.tensor([[[7.0]]]))


def test_mask_hides_keys_and_a_sample_without_real_keys_attends_to_all() -> None:
    torch.manual_seed(0)
    q, kv = torch.randn(2, 8), torch.randn(3, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [False] * 5])
    found = cross_attend(q, kv, heads=2, mask_BK=mask)
    torch.testing.assert_close(found[:1], cross_attend(q, kv[:1], heads=2))
    torch.testing.assert_close(found[1:2], cross_attend(q, kv[1:2, :2], heads=2))
    torch.testing.assert_close(found[2:], cross_attend(q, kv[2:], heads=2))


def test_tokens_attend_to_each_other_by_hand() -> None:
    # Queries 1 and 0; keys 0 and ln 3; values 4 and 8: weights 1/4, 3/4 and 1/2, 1/2.
    qkv = torch.tensor([[[1.0, 0.0, 4.0], [0.0, math.log(3.0), 8.0]]])
    torch.testing.assert_close(self_attend(qkv, heads=1), torch.tensor([[[7.0], [6.0]]]))


def test_padding_is_not_read_by_other_tokens() -> None:
    torch.manual_seed(0)
    qkv = torch.randn(3, 5, 24)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [False] * 5])
    found = self_attend(qkv, heads=2, mask_BN=mask)
    torch.testing.assert_close(found[:1], self_attend(qkv[:1], heads=2))
    torch.testing.assert_close(found[1:2, :2], self_attend(qkv[1:2, :2], heads=2))
    torch.testing.assert_close(found[2:], self_attend(qkv[2:], heads=2))


def test_heads_own_neighbouring_channels() -> None:
    x = torch.arange(8.0).view(1, 2, 4)
    assert split_heads(x, 2)[0, 1].tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert torch.equal(merge_heads(split_heads(x, 2)), x)

"""Arrays hold what tensors hold, bfloat16 included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.arrays import get_arrays, set_arrays
from models.groups import named_tensors
from models.low_rank import masked_basis
from strategies.protocol import from_arrays, to_arrays
from tests.models.helpers import batch, tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_model_of_any_precision_goes_over_the_wire_and_back(dtype: torch.dtype) -> None:
    source, target = tiny("text", seed=0).to(dtype), tiny("text", seed=1).to(dtype)
    arrays = get_arrays(source, named_tensors(source))
    stored = {torch.bfloat16: np.float32, torch.float16: np.float16, torch.float32: np.float32}[dtype]
    assert {array.dtype for array in arrays.values()} == {np.dtype(stored)}
    set_arrays(target, from_arrays(to_arrays(arrays)))
    for name, tensor in named_tensors(target).items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, named_tensors(source)[name])
    ids = batch("text")
    assert torch.equal(target.eval()(ids), source.eval()(ids))


def test_float32_arrays_are_rounded_into_a_bfloat16_model() -> None:
    model = tiny("image").to(torch.bfloat16)
    set_arrays(model, {"backbone.norm.bias": np.full(64, 1.001, np.float32)})
    assert model.get_parameter("backbone.norm.bias").dtype == torch.bfloat16
    assert model.get_parameter("backbone.norm.bias").tolist() == [1.0] * 64


def test_places_of_words_keep_their_precision_in_bfloat16() -> None:
    mask = torch.arange(24)[None] < torch.tensor([[24], [17]])
    exact, rounded = masked_basis(mask, 16, torch.float64), masked_basis(mask, 16, torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.double() - exact).abs().max() <= exact.abs().max() * 2**-8

"""Position codes of texts, and patches of series."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from models.front_ends import SeriesFrontEnd, TextFrontEnd, fourier_code, sinusoidal_code
from tests.models.helpers import tiny

CPU = torch.device("cpu")


def test_sinusoidal_code_by_hand() -> None:
    code = sinusoidal_code(3, 4, torch.float64, CPU) / (0.02 * math.sqrt(2))
    expected = [[math.sin(n), math.cos(n), math.sin(n / 100), math.cos(n / 100)] for n in range(3)]
    assert torch.allclose(code, torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    assert sinusoidal_code(5, 3, torch.float32, CPU).shape == (5, 3)


def test_sinusoidal_code_is_as_large_as_words() -> None:
    code = sinusoidal_code(50, 64, torch.float32, CPU)
    assert code.square().mean().sqrt().item() == pytest.approx(0.02, rel=1e-5)
    front = TextFrontEnd(64, vocab_size=2000, max_tokens=24)
    for weight in (front.embed.weight, front.place):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_places_are_added_to_words() -> None:
    front = TextFrontEnd(8, vocab_size=5, max_tokens=2, position="sinusoidal")
    tokens, mask, grid = front(torch.tensor([[3, 4, 3, 0]]))
    assert torch.equal(tokens[0, 2], front.embed.weight[3] + sinusoidal_code(9, 8, torch.float32, CPU)[2])
    assert mask.tolist() == [[True, True, True, False]]
    assert grid == (4,)
    assert [name for name, _ in front.named_parameters()] == ["embed.weight"]


@pytest.mark.parametrize("low_rank", ["basis", "none", "pool"])
def test_sinusoidal_texts_may_be_longer_than_the_model_was_built_for(low_rank: str) -> None:
    model = tiny("text", low_rank, text_position="sinusoidal").eval()
    ids = torch.randint(1, 30, (3, 40), generator=torch.Generator().manual_seed(0))
    unpadded = model(ids)
    assert torch.allclose(model(F.pad(ids, (0, 25))), unpadded, atol=1e-5)
    moved = torch.cat([ids[:, 20:], ids[:, :20]], dim=1)
    assert not torch.allclose(model(moved), unpadded, atol=1e-3)


def test_learned_positions_end_and_the_message_names_the_settings() -> None:
    with pytest.raises(ValueError, match=r"13 tokens.*12 learned.*data\.max-tokens.*model\.text-position = 'sinusoidal'"):
        tiny("text")(torch.ones(1, 13, dtype=torch.long))
    assert tiny("text").get_parameter("adapter.front.place").shape == (12, 64)


def test_the_position_does_not_change_other_initial_weights() -> None:
    learned, sinusoidal = tiny("text"), tiny("text", text_position="sinusoidal")
    assert torch.equal(
        learned.get_parameter("adapter.front.embed.weight"), sinusoidal.get_parameter("adapter.front.embed.weight")
    )


def test_a_patch_of_a_series_is_its_samples_and_its_place() -> None:
    """Token n is W (samples 2n and 2n + 1 of each channel, channel by channel, then the code of place n) + b."""
    front = SeriesFrontEnd(5, channels=3, patch_size=2, fourier_bands=2)
    series = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    tokens, mask, grid = front(series)
    assert tokens.shape == (4, 4, 5)
    assert (mask, grid) == (None, (4,))
    code = fourier_code((4,), 2, torch.float32, CPU)
    for place in range(4):
        samples = torch.tensor([float(series[1, channel, 2 * place + i]) for channel in range(3) for i in range(2)])
        expected = front.embed.weight @ torch.cat([samples, code[place]]) + front.embed.bias
        torch.testing.assert_close(tokens[1, place], expected)


@pytest.mark.parametrize(
    ("shape", "found"), [((2, 4, 8), "4 channels and 8 samples"), ((2, 3, 9), "3 channels and 9 samples")]
)
def test_other_series_are_refused(shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(ValueError, match=rf"{found}: expected 3 channels, .* patches of 2.*data\.window"):
        SeriesFrontEnd(5, channels=3, patch_size=2)(torch.zeros(shape))

from __future__ import annotations

import pytest
import torch

from data_partition.augment import drop_words, flip_and_shift


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_generator_decides():
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator())
    assert torch.equal(flip_and_shift(images, generator(1)), flip_and_shift(images, generator(1)))
    assert not torch.equal(flip_and_shift(images, generator(1)), flip_and_shift(images, generator(2)))
    tokens = torch.randint(1, 100, (8, 24), generator=generator())
    assert torch.equal(drop_words(tokens, 0.5, generator(1)), drop_words(tokens, 0.5, generator(1)))
    assert not torch.equal(drop_words(tokens, 0.5, generator(1)), drop_words(tokens, 0.5, generator(2)))


@pytest.mark.parametrize(("border", "padding"), [("replicate", "replicate"), ("zero", "constant")])
def test_every_image_is_a_flip_and_a_shift_with_that_border(border, padding):
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=generator())
    before = images.clone()
    moved = flip_and_shift(images, generator(3), max_shift=2, border=border)
    assert moved.dtype == torch.uint8
    assert torch.equal(images, before)
    seen = set()
    for original, result in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(original[None].float(), (2, 2, 2, 2), mode=padding)[0].to(torch.uint8)
        matches = [
            (flip, top, left)
            for flip in (False, True)
            for top in range(5)
            for left in range(5)
            if torch.equal(result, (padded.flip(2) if flip else padded)[:, top : top + 8, left : left + 8])
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len({flip for flip, _, _ in seen}) == 2
    assert {top for _, top, _ in seen} == {left for _, _, left in seen} == set(range(5))


def test_the_border_changes_no_draw_and_no_pixel_of_the_image():
    images = torch.randint(1, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=generator())
    first, second = generator(5), generator(5)
    black = flip_and_shift(images, first, 4, "zero")
    kept = flip_and_shift(images, second, 4)
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))
    assert torch.equal(black, torch.where(black > 0, kept, 0))
    assert 0.2 < (black > 0).double().mean() < 0.9
    assert torch.equal(flip_and_shift(images, generator(5)), flip_and_shift(images, generator(5), 3, "replicate"))


def test_no_shift_leaves_the_image_or_its_mirror():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    for original, result in zip(images, flip_and_shift(images, generator(), max_shift=0), strict=True):
        assert torch.equal(result, original) or torch.equal(result, original.flip(2))


def test_words_are_dropped_at_the_given_rate_and_padding_stays():
    tokens = torch.full((500, 24), 7)
    tokens[:, 20:] = 0
    dropped = drop_words(tokens, 0.15, generator())
    assert (dropped[:, 20:] == 0).all()
    assert set(dropped[:, :20].unique().tolist()) == {1, 7}
    assert abs((dropped[:, :20] == 1).double().mean().item() - 0.15) < 0.02


def test_never_everything_and_never_nothing_asked():
    tokens = torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0]])
    for seed in range(20):
        assert ((drop_words(tokens, 1.0, generator(seed)) > 1).sum(dim=1) == 1).all()
    assert torch.equal(drop_words(tokens, 0.0, generator()), tokens)
    assert drop_words(tokens, 1.0, generator(), replacement=4)[1].tolist() == [8, 0, 0, 0]

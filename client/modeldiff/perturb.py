"""Pairs of a probe and a perturbed copy of it, in place of random pairs.

Everything is searched for on the target's own model, once per target: all candidates are then compared on the same pairs. The
copies stand behind the probes, which there must be n of: pair i is (i, n + i).

On small models random pairs found a donor with the same classes more often, so these are options.

Source: ModelDiff (Li et al., ISSTA 2021), section 4.1 and their published code: gradients with outputs that are far from those
of the original (divergence) and of each other (diversity), and hill climbing without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.modeldiff.embeddings import embedding_module, embedding_rms, shifted
from client.modeldiff.outputs import BATCH, outputs
from client.modeldiff.probes import Probes

PAD = 0


def paired_with_copies(model: nn.Module, probes: Probes, how: str, seed: int) -> Probes:
    """Return probes and copies as ``selection.pairing`` says; ``random``: the probes as they are.

    Args:
        model: the target's.
        probes: of the target, with random pairs.
        how: ``gradient``; ``words``, which for images is ``gradient``; ``hill-climb``; or ``random``.
        seed: of everything random.
    """
    texts = probes.inputs.ndim == 2
    if how == "random":
        return probes
    if how == "hill-climb":
        return hill_climb(model, probes, seed=seed)
    if not texts:
        return pgd_images(model, probes, seed=seed)
    return mutate_tokens(probes, seed=seed) if how == "words" else pgd_embeddings(model, probes, seed=seed)


def pgd_images(
    model: nn.Module, probes: Probes, *, eps: float = 0.06, steps: int = 50, step_size: float = 0.01, seed: int = 0
) -> Probes:
    """Return images and copies that projected gradient ascent has changed by at most ``eps`` in each pixel.

    Args:
        model: the target's.
        probes: images.
        eps: largest change of a pixel, of which values are in [0, 1].
        steps: gradient steps from a random start inside eps.
        step_size: of one step, by the sign of the gradient.
        seed: of the start.

    Source: Madry et al. (ICLR 2018); settings are those of ModelDiff.
    """
    images = as_floats(probes.inputs)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    low, high = (images - eps).clamp(min=0), (images + eps).clamp(max=1)
    away, device = directions(model, probes), next(model.parameters()).device
    copies = [
        ascend(model, part.to(device), low[i].to(device), high[i].to(device), away[i].to(device), steps, step_size)
        for i, part in zip(_split(torch.arange(len(images))), _split((images + eps * noise).clamp(low, high)), strict=True)
    ]
    return with_copies(replace(probes, inputs=images), torch.cat(copies))


def pgd_embeddings(
    model: nn.Module, probes: Probes, *, eps: float = 0.5, steps: int = 50, step_size: float = 0.05, seed: int = 0
) -> Probes:
    """Return texts and copies whose word embeddings projected gradient ascent has changed; padding stays as it is.

    Args:
        model: the target's.
        probes: texts.
        eps: largest change of a channel, in units of the root mean square of the model's embeddings of the probes.
        steps: gradient steps from a random start inside eps.
        step_size: of one step, in the same units.
        seed: of the start.

    Source: Miyato et al. (ICLR 2017) perturb normalised word embeddings by gradients.
    """
    device = next(model.parameters()).device
    tokens, away = probes.inputs, directions(model, probes)
    scale = embedding_rms(model, tokens.to(device))
    dim = _embedding_dim(model, tokens[:1].to(device))
    noise = torch.rand((*tokens.shape, dim), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    found = []
    for i, part in zip(_split(torch.arange(len(tokens))), _split(eps * noise), strict=True):
        texts = tokens[i].to(device)
        real = (texts != PAD).unsqueeze(-1)
        bound = (eps * real).expand(-1, -1, dim)
        found.append(
            ascend(
                partial(_shifted_logits, model, texts, scale),
                part.to(device) * real,
                -bound,
                bound,
                away[i].to(device),
                steps,
                step_size,
            )
        )
    copies = torch.cat(found)
    return replace(with_copies(probes, tokens), offsets=torch.cat([torch.zeros_like(copies), copies]))


def mutate_tokens(probes: Probes, *, share: float = 0.3, seed: int = 0) -> Probes:
    """Return texts and copies in which random words are others, drawn from the different words of all probes.

    Args:
        probes: texts.
        share: probability with which each word is replaced, by another word for certain; at least one of a text is.
        seed: of places and words.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(probes.inputs.shape, generator=generator).masked_fill(probes.inputs == PAD, 2.0)
    replaced = (draws < share) | (draws == draws.amin(dim=1, keepdim=True))
    return with_copies(probes, other_words(probes.inputs, replaced & (probes.inputs != PAD), generator))


@torch.no_grad()
def hill_climb(
    model: nn.Module, probes: Probes, *, eps: float = 0.2, share: float = 0.01, steps: int = 100, seed: int = 0
) -> Probes:
    """Return probes and copies found by random moves, of which those are kept that raise an input's score.

    The score of input i is ||y_i' - y_i|| (divergence) times the mean over j of ||y_i' - y_j'|| (diversity), y the logits.
    All inputs move at once, and each is judged with the others as they are; in ModelDiff's code one value of one input moves.

    Args:
        model: the target's.
        probes: images or texts.
        eps: size of a move of a value of an image, and the largest change of it; texts do not need it.
        share: of the values of an input that move in a step: pixels by ± eps, words to other words; at least one.
        steps: forward passes of all probes.
        seed: of the moves.
    """
    generator = torch.Generator().manual_seed(seed)
    texts = not probes.inputs.is_floating_point() and probes.inputs.ndim == 2
    start = probes.inputs if texts else as_floats(probes.inputs)
    clean, now = _logits(model, start), start
    logits, best = clean, torch.zeros(len(start))
    for _ in range(steps):
        draws = torch.rand(now.shape, generator=generator)
        if texts:
            draws = draws.masked_fill(now == PAD, 2.0)
        lowest = draws.flatten(1).amin(dim=1).view(-1, *[1] * (draws.ndim - 1))
        moving = (draws < share) | ((draws == lowest) & (draws < 1))
        if texts:
            moved = other_words(now, moving, generator)
        else:
            signs = torch.randint(0, 2, now.shape, generator=generator) * 2 - 1
            moved = (now + eps * signs * moving).clamp(start - eps, start + eps).clamp(0, 1)
        tried = _logits(model, moved)
        score = (tried - clean).norm(dim=1) * torch.cdist(tried, logits).mean(dim=1)
        better = score > best
        mask = better.view(-1, *[1] * (now.ndim - 1))
        now, best = torch.where(mask, moved, now), torch.where(better, score, best)
        logits = torch.where(better[:, None], tried, logits)
    return with_copies(replace(probes, inputs=start), now)


def with_copies(probes: Probes, copies: Tensor) -> Probes:
    """Put perturbed copies behind n probes, and pair each probe with its own."""
    n = len(probes)
    pairs = torch.stack([torch.arange(n), torch.arange(n, 2 * n)], dim=1)
    inputs = torch.cat([probes.inputs, copies.clone().cpu()])
    return Probes(inputs, torch.cat([probes.labels, probes.labels]), pairs)


def ascend(
    compute: Callable[[Tensor], Tensor], start: Tensor, low: Tensor, high: Tensor, away: Tensor, steps: int, step_size: float
) -> Tensor:
    """Move inputs by the sign of the gradient of their logits along ``away``, inside [low, high]; return them on the CPU."""
    now = start
    for _ in range(steps):
        now = now.detach().requires_grad_()
        (gradient,) = torch.autograd.grad((compute(now) * away).sum(), now)
        now = (now + step_size * gradient.sign()).clamp(low, high)
    return now.detach().cpu()


def directions(model: nn.Module, probes: Probes) -> Tensor:
    """Return for each probe the unit vector from its logits to the mean of all, (n, K): out of where it is, each its own way.

    ModelDiff's code regresses to 1000 times this difference. The goal is so far away that the gradient is that of the inner
    product with it. There the first logit has ten times the weight of all others together; here they weigh the same.
    """
    logits = outputs(model, probes, next(model.parameters()).device).logits
    return F.normalize(logits.mean(dim=0) - logits, dim=1)


def other_words(tokens: Tensor, replaced: Tensor, generator: torch.Generator) -> Tensor:
    """Replace words (n, N) where ``replaced`` says so by another of the different words in all texts.

    Raises:
        ValueError: all texts are made of one word.
    """
    words, place = torch.unique(tokens, return_inverse=True)
    first = int(words[0] == PAD)
    number = len(words) - first
    if number < 2:
        raise ValueError(f"found {number} different words in {len(tokens)} texts, expected at least 2")
    step = torch.randint(1, number, tokens.shape, generator=generator)
    return torch.where(replaced, words[first + (place - first + step) % number], tokens)


def as_floats(images: Tensor) -> Tensor:
    """Return images (n,3,H,W) as float32 in [0, 1].

    Raises:
        ValueError: they are no images.
    """
    if images.ndim != 4:
        raise ValueError(f"inputs have shape {tuple(images.shape)}, expected images (n, channels, height, width)")
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    nothing = torch.zeros(len(inputs), dtype=torch.long)
    return outputs(model, Probes(inputs, nothing, nothing.new_empty(0, 2)), next(model.parameters()).device).logits


def _embedding_dim(model: nn.Module, tokens: Tensor) -> int:
    with torch.no_grad():
        return int(embedding_module(model)(tokens).shape[-1])


def _shifted_logits(model: nn.Module, texts: Tensor, scale: float, offsets: Tensor) -> Tensor:
    with shifted(model, scale * offsets):
        return model(texts)  # type: ignore[no-any-return]


def _split(values: Tensor) -> tuple[Tensor, ...]:
    return torch.split(values, BATCH)

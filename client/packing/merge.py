"""Merging: one model of N by their parameters alone, without data. The arms that packing is compared with.

    average           mean of the parameters
    task arithmetic   base + lambda sum_k (w_k - base)
    ties              as above, of differences whose small values and minority signs are left out
    fisher            sum_k F_k w_k / sum_k F_k, F the diagonal of the Fisher information
    block union       each weight from the best donor that uses it: client/donors.py

Models must be of one shape, and averaging has sense only if they began as one: parameters of models that were initialised
apart do not mean the same. Running means and variances of batch norm are averaged in every arm, as a sum of differences may
make a variance negative.

Sources: model soups, Wortsman et al., ICML 2022; Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023; Yadav et
al., "TIES-Merging", NeurIPS 2023; Matena & Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from client.continual.penalty import fisher_diagonal
from client.donors import Donor, combine
from client.seeding import seed_for
from config import MERGES, Packing
from data_partition.client_data import Split
from models.arrays import Arrays

FLOOR = 1e-6
"""Least Fisher information of a parameter, so that those that no model needs are averaged."""
STATISTICS = (".running_mean", ".running_var")


def merge(
    settings: Packing,
    models: Sequence[Mapping[str, np.ndarray]],
    *,
    base: Mapping[str, np.ndarray] | None = None,
    fishers: Sequence[Mapping[str, np.ndarray]] | None = None,
    donors: Sequence[Donor] | None = None,
) -> Arrays:
    """Merge by ``packing.how``.

    Args:
        settings: section ``packing``.
        models: arrays by name, all of the same names and shapes.
        base: what all models began as; for task-arithmetic and ties.
        fishers: of each model; for fisher, see :func:`fisher_of`.
        donors: the same models with what each uses, the best first; for block-union.

    Raises:
        ValueError: ``packing.how`` is no way to merge, something that it needs is missing, or the models differ in shape.
    """
    if settings.how not in MERGES:
        raise ValueError(f"packing.how = '{settings.how}' merges no parameters: expected one of {', '.join(MERGES)}")
    needed = {"task-arithmetic": base, "ties": base, "fisher": fishers, "block-union": donors}
    if settings.how in needed and not needed[settings.how]:
        word = {"fisher": "the Fisher information of each model", "block-union": "what each donor uses"}
        raise ValueError(f"packing.how = '{settings.how}' needs {word.get(settings.how, 'what all models began as')}")
    if settings.how == "task-arithmetic":
        return task_arithmetic(base or {}, models, settings.arithmetic_scale)
    if settings.how == "ties":
        return ties(base or {}, models, settings.ties_keep, settings.ties_scale)
    if settings.how == "fisher":
        return fisher(models, fishers or ())
    return combine(donors or (), "block-union")[0] if settings.how == "block-union" else average(models)


def average(models: Sequence[Mapping[str, np.ndarray]], weights: Sequence[float] | None = None) -> Arrays:
    """Return the weighted mean.

    Args:
        models: of one shape.
        weights: of the models, with the sum 1; None: equal.

    Raises:
        ValueError: there is no model, or they differ in names or shapes.
    """
    check_alike(models)
    shares = [1 / len(models)] * len(models) if weights is None else weights
    merged: Arrays = {}
    for name in models[0]:
        terms = [share * model[name].astype(np.float64) for share, model in zip(shares, models, strict=True)]
        merged[name] = np.sum(terms, axis=0).astype(np.float32)
    return merged


def task_arithmetic(base: Mapping[str, np.ndarray], models: Sequence[Mapping[str, np.ndarray]], scale: float) -> Arrays:
    """Return base + scale * sum of differences; with scale = 1/N the average.

    Raises:
        ValueError: there is no model, or they and the base differ in names or shapes.
    """
    check_alike([*models, base])
    merged = average(models)
    for name in trained_names(base):
        change = sum(model[name].astype(np.float64) - base[name] for model in models)
        merged[name] = (base[name] + scale * change).astype(np.float32)
    return merged


def ties(base: Mapping[str, np.ndarray], models: Sequence[Mapping[str, np.ndarray]], keep: float, scale: float) -> Arrays:
    """Trim, elect signs, merge.

    Of each model's difference from the base the ``keep`` largest by size stay. Each parameter gets the sign of the sum of what
    stayed, and changes by ``scale`` times the mean of those that have it.

    Args:
        base: what all models began as.
        models: of its names and shapes.
        keep: share of all parameters, in (0, 1].
        scale: lambda.

    Raises:
        ValueError: there is no model, or they and the base differ in names or shapes.
    """
    check_alike([*models, base])
    merged, names = average(models), trained_names(base)
    start = _flat(base, names)
    changes = np.stack([_flat(model, names) - start for model in models])
    kept = max(1, round(keep * changes.shape[1]))
    for change in changes:
        least = np.partition(np.abs(change), -kept)[-kept]
        change[np.abs(change) < least] = 0.0
    agree = np.sign(changes) == np.sign(changes.sum(axis=0))
    mean = (changes * agree).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)
    after = np.split(start + scale * mean, np.cumsum([base[name].size for name in names])[:-1])
    return merged | {name: part.reshape(base[name].shape).astype(np.float32) for name, part in zip(names, after, strict=True)}


def fisher(models: Sequence[Mapping[str, np.ndarray]], fishers: Sequence[Mapping[str, np.ndarray]]) -> Arrays:
    """Return the mean of each parameter, weighted by how much each model needs it; what has no Fisher information is averaged.

    Args:
        models: of one shape.
        fishers: of each model, by name, >= 0; values below FLOOR count as that.

    Raises:
        ValueError: there is no model, or models or their Fisher information differ in names or shapes.
    """
    check_alike(models)
    if len(fishers) != len(models):
        raise ValueError(f"found the Fisher information of {len(fishers)} of {len(models)} models: expected one for each")
    check_alike(fishers)
    merged = average(models)
    for name in fishers[0]:
        if name in merged:
            shares = np.stack([np.maximum(each[name].astype(np.float64), FLOOR) for each in fishers])
            values = np.stack([model[name] for model in models])
            merged[name] = ((shares * values).sum(axis=0) / shares.sum(axis=0)).astype(np.float32)
    return merged


def fisher_of(model: nn.Module, split: Split, samples: int, seed: int) -> Arrays:
    """Return the diagonal of the Fisher information of a model's trained parameters on some examples, by name.

    Args:
        model: on any device.
        split: examples; at most ``samples`` of them are drawn.
        samples: >= 1.
        seed: of the draw, and of the labels, which come from the model's own predictions.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, 0, 0, "packing/fisher"))
    rows = torch.randperm(len(split), generator=generator)[:samples]
    device = next(model.parameters()).device
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    inputs, labels = split.inputs[rows].to(device), split.labels[rows].to(device)
    return {
        name: value.cpu().numpy() for name, value in fisher_diagonal(model, inputs, labels, names, generator=generator).items()
    }


def trained_names(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of what is trained, not of running means and variances."""
    return [name for name in arrays if not name.endswith(STATISTICS)]


def check_alike(models: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Check that models have the same names and shapes.

    Raises:
        ValueError: they do not, or there is none.
    """
    if not models:
        raise ValueError("found no model, expected 1 or more")
    shapes = [{name: value.shape for name, value in model.items()} for model in models]
    for i, other in enumerate(shapes):
        if wrong := sorted(name for name in shapes[0] | other if shapes[0].get(name) != other.get(name)):
            name = wrong[0]
            raise ValueError(
                f"model {i} differs from the first in {len(wrong)} tensors, such as {name!r}: found {other.get(name)}, "
                f"expected {shapes[0].get(name)}. Parameters of models of other shapes cannot be merged: distil them"
            )


def _flat(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in names])

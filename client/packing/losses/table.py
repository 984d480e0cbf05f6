"""The losses by their names in ``packing.losses``, with what each needs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from client.packing.losses import amd, ifalign, rows, similarity
from client.packing.needs import Needs

LatentLoss = Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]
"""Latents of student and teacher, and the grid of their places if they are a map, to (B,) or a scalar."""

NEEDS: dict[str, Needs] = {
    "kd": Needs("logits", labels=True),
    "cosine": Needs("latents", same_rows=True, same_width=True, mapped=True, by_row=True),
    "mse": Needs("latents", same_rows=True, same_width=True, mapped=True, by_row=True),
    "mse-batch": Needs("latents", same_rows=True, same_width=True, mapped=True, by_row=True),
    "amd": Needs("latents", same_rows=True, by_row=True, min_rows=2),
    "amd-local": Needs("latents", same_rows=True, by_row=True, min_rows=2 * amd.PARTS),
    "sp": Needs("latents", per_sample=False),
    "cka": Needs("latents", per_sample=False),
    "ifalign": Needs("latents", paired=False, per_sample=False, same_width=True, mapped=True),
    "edu-attention": Needs("features", prototypes=True),
}
"""``kd`` is in losses/logits.py, ``edu-attention`` in losses/edu_attention.py; the others are below."""

LATENT_LOSSES: dict[str, LatentLoss] = {
    "cosine": lambda student, teacher, _: rows.cosine(student, teacher),
    "mse": lambda student, teacher, _: rows.mse(student, teacher),
    "mse-batch": lambda student, teacher, _: rows.mse_batch(student, teacher),
    "amd": lambda student, teacher, _: amd.amd(student, teacher),
    "amd-local": amd.amd_local,
    "sp": lambda student, teacher, _: similarity.sp(student, teacher),
    "cka": lambda student, teacher, _: similarity.cka(student, teacher),
    "ifalign": lambda student, teacher, _: ifalign.ifalign(student, teacher),
}

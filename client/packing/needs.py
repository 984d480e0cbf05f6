"""What a loss needs, and whether student and teacher have it: a loss that would teach noise is refused, with the reason.

A perfect student on a shuffled batch of its teacher scores as a stranger does by SP and AMD, and little better by cosine: they
compare sample by sample, and mean nothing where the two see different instances. Cosine, MSE and AMD also compare row n of the
latents with row n, which is noise between models whose latent arrays were drawn apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RELATED = 0.5
"""Mean cosine of two latent arrays, row by row, from which they count as one that was trained further."""


class PackingError(ValueError):
    """A student cannot learn from its teachers as it was asked to; the message lists every reason."""


@dataclass(frozen=True)
class Needs:
    """What a loss declares.

    Attributes:
        reads: which part of a trace it compares; ``features`` are the mean of the queries, what the classifier reads.
        paired: row b of both batches must be the same instance.
        per_sample: it returns one value for each of the B samples; else a scalar for the batch.
        same_rows: the latents of both must be as many, N.
        same_width: the channels of both must be as many, D.
        mapped: a learned map from the student's shape to the teacher's makes rows and width equal (see projectors).
        by_row: row n is compared with row n, so the rows must mean the same in both.
        min_rows: fewest rows N that it can tell apart; stages with fewer are left out.
        labels: classes of the same names, two or more; or the rule for disjoint labels (see labels).
        prototypes: the teacher's feature of each class.
    """

    reads: Literal["logits", "latents", "features"]
    paired: bool = True
    per_sample: bool = True
    same_rows: bool = False
    same_width: bool = False
    mapped: bool = False
    by_row: bool = False
    min_rows: int = 1
    labels: bool = False
    prototypes: bool = False


@dataclass(frozen=True)
class Pair:
    """What there is between a student and one teacher.

    Attributes:
        teacher: its name.
        paired: both see the same instances.
        rows: latents of the student and of the teacher, of each pair of stages.
        widths: their channels, likewise.
        related: mean cosine of their latent arrays, row by row; None: their rows are places of the input.
        common: classes that both know.
        prototypes: the teacher has them.
    """

    teacher: str
    paired: bool
    rows: tuple[tuple[int, int], ...]
    widths: tuple[tuple[int, int], ...]
    related: float | None
    common: int
    prototypes: bool


def usable_stages(needs: Needs, pair: Pair) -> tuple[int, ...]:
    """Return the indices of the pairs of stages that have enough rows for a loss."""
    return tuple(i for i, rows in enumerate(pair.rows) if min(rows) >= needs.min_rows)


def refusals(name: str, needs: Needs, pair: Pair) -> list[str]:
    """Return why a loss would teach noise, or cannot be computed; empty: it may be used."""
    found, between = [], f"loss '{name}' of teacher '{pair.teacher}'"
    if needs.paired and not pair.paired:
        found.append(
            f"{between} compares sample by sample, and the two see different instances: it would teach noise. Give the "
            "teacher the same instances (Teacher.inputs, row by row), or use 'ifalign', which compares distributions"
        )
    if needs.prototypes and not pair.prototypes:
        found.append(f"{between} attends to the teacher's class prototypes, and it has none: set Teacher.prototypes")
    if needs.reads != "latents":
        return found
    stages = usable_stages(needs, pair)
    if not stages:
        found.append(
            f"{between} compares how positions differ, and needs {needs.min_rows} rows or more: found {pair.rows}. Use 'sp', "
            "'cka' or 'kd'"
        )
    if needs.same_rows and not needs.mapped and any(pair.rows[i][0] != pair.rows[i][1] for i in stages):
        found.append(
            f"{between} compares position by position, and student and teacher have {[pair.rows[i] for i in stages]} rows: "
            "use 'sp' or 'cka', which take any number, or 'cosine' or 'mse', which learn a resampler"
        )
    if needs.same_width and not needs.mapped and any(pair.widths[i][0] != pair.widths[i][1] for i in stages):
        found.append(f"{between} needs equal channels, found {[pair.widths[i] for i in stages]}: use 'sp' or 'cka'")
    return found


def doubts(name: str, needs: Needs, pair: Pair) -> list[str]:
    """Return why a loss may teach noise although it can be computed."""
    resampled = needs.mapped and any(student != teacher for student, teacher in pair.rows)
    if needs.by_row and not resampled and pair.related is not None and pair.related < RELATED:
        return [
            f"loss '{name}' of teacher '{pair.teacher}' compares latents row by row, and the two latent arrays are not "
            f"related (mean cosine {pair.related:.2f}): it teaches an order that means nothing. Start the student from this "
            "teacher, or use 'sp' or 'cka'"
        ]
    return []

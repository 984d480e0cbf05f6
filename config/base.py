"""What every section of the run config is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Scalar = bool | int | float | str
PROJECT_ROOT = Path(__file__).resolve().parents[1]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


class ConfigError(ValueError):
    """A run config that cannot be used; the message lists every fault, one a line."""


def ascending_shares(value: str) -> tuple[float, ...]:
    """Read comma-separated numbers between 0 and 1, ascending.

    >>> ascending_shares("0.5, 0.8")
    (0.5, 0.8)

    Raises:
        ValueError: they are something else.
    """
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        found = (-1.0,)
    if list(found) != sorted(set(found)) or not all(0 < share < 1 for share in found):
        raise ValueError("expected comma-separated numbers between 0 and 1, ascending, such as '0.3,0.5,0.7'")
    return found


class Section(BaseModel):
    """A frozen section of the run config whose keys are written in kebab case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        allow_inf_nan=False,
    )

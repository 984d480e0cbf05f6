"""What a teacher says of what it sends: whose it is, its classes in order, its sizes, and the hash of its arrays."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from strategies.protocol import digest

TEXT_FEATURES = "text-features"
"""Name of the array of text features, (classes, F), beside those of the image branch."""


@dataclass(frozen=True)
class TeacherCard:
    """The card of a teacher.

    Attributes:
        partition_id: the client that trained it.
        classes: of its text features, in their order, base classes first.
        base: how many of them it was trained on.
        logit_scale: what cosines are multiplied by.
        vision: sizes of its image branch, see ``models.clip.Vision``.
        shapes: of its arrays, by name.
        sha256: of its arrays, see :func:`strategies.protocol.digest`.
    """

    partition_id: int
    classes: tuple[str, ...]
    base: int
    logit_scale: float
    vision: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    sha256: str

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> TeacherCard:
        """Read :meth:`to_json`'s line.

        Raises:
            ValueError: it is not such a line.
        """
        try:
            fields = json.loads(text)
            shapes = {name: tuple(int(side) for side in shape) for name, shape in fields["shapes"].items()}
            found = TeacherCard(**{**fields, "classes": tuple(fields["classes"]), "shapes": shapes})
            if not found.sha256.isalnum() or not all(isinstance(name, str) for name in found.classes):
                raise TypeError(f"found hash {found.sha256!r} and classes {found.classes}")
            if not 0 < found.base < len(found.classes) or shapes[TEXT_FEATURES][0] != len(found.classes):
                raise TypeError(f"{found.base} base of {len(found.classes)} classes, features {shapes[TEXT_FEATURES]}")
            if not math.isfinite(found.logit_scale):
                raise TypeError(f"found logit scale {found.logit_scale}")
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"a teacher's card is not one: {error}") from None
        return found

    def check(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse arrays that are not those of the card.

        Raises:
            ValueError: the hash differs.
        """
        found = digest(arrays)
        if found != self.sha256:
            raise ValueError(f"the arrays have the hash {found[:16]}, the teacher's card says {self.sha256[:16]}")

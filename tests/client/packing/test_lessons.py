"""How the terms of one teacher are weighed."""

from __future__ import annotations

import pytest
import torch

from client.packing.lessons import total


def test_terms_of_samples_and_of_batches_by_hand() -> None:
    terms = {"kd": torch.tensor([1.0, 2.0]), "sp": torch.tensor(4.0)}
    loss, shown = total(terms, {"kd": 2.0, "sp": 0.5, "cka": 9.0}, torch.tensor([0.2, 0.6]))
    assert shown == pytest.approx({"kd": (0.2 * 1 + 0.6 * 2) / 2, "sp": (0.2 + 0.6) / 2 * 4})
    assert float(loss) == pytest.approx(2 * 0.7 + 0.5 * 1.6)

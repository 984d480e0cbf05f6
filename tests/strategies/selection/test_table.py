import math

import pytest
import torch

from strategies.selection.table import SCORERS, score
from tests.strategies.selection.helpers import blobs, candidate, outputs, random_pairs, target


def test_every_scorer_of_the_table_scores():
    labels, own = blobs(2)
    chosen = target(labels, own, random_pairs(60))
    other = candidate(blobs(1, seed=1)[1], tune=lambda: 0.25)
    for name, scorer in SCORERS.items():
        found = score(name, chosen, other)
        assert type(found) is float, name
        assert found == scorer(chosen, other) == score(name, chosen, other), name


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_diverged_donor_gets_the_lowest_score(name, broken):
    labels, own = blobs(2)
    chosen = target(labels, own, random_pairs(60))
    for found in (outputs(torch.full((60, 8), broken)), outputs(own.features, torch.full((60, 3), broken))):
        assert score(name, chosen, candidate(found)) == -math.inf


def test_scorers_leave_outputs_as_they_are():
    labels, own = blobs(2)
    other = blobs(1, seed=1)[1]
    before = [tensor.clone() for tensor in (own.features, own.logits, other.features, other.logits)]
    for name in SCORERS:
        score(name, target(labels, own, random_pairs(60)), candidate(other))
    after = (own.features, own.logits, other.features, other.logits)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_unknown_names_are_refused():
    labels, own = blobs(2)
    with pytest.raises(ValueError, match="'nonsense': expected one of modeldiff, "):
        score("nonsense", target(labels, own), candidate(own))

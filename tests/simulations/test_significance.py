import math

import pytest

from simulations.significance import holm, interval, t_test_p, wilcoxon_p


def test_holm_by_hand():
    """.005 · 4, .01 · 3, .03 · 2, .04 · 1, and none below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_at_most_one_and_counts_questions_without_a_test():
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.25, None, 0.125]) == [0.5, None, 0.375]
    assert holm([]) == []
    assert holm([0.25]) == [0.25]


def test_t_test_against_its_closed_form():
    """Mean 2, sd 1, n 3: t = 2·sqrt 3, and with two degrees of freedom p = 1 − t / sqrt(t² + 2)."""
    t = 2 * math.sqrt(3)
    assert t_test_p([1.0, 2.0, 3.0]) == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert (t_test_p([1.0]), t_test_p([2.0, 2.0]), t_test_p([])) == (None, None, None)


def test_interval_against_its_closed_form():
    """No hit of 10: the upper end solves (1 − p)^10 = .025."""
    assert interval(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert interval(10, 10) == pytest.approx((0.025**0.1, 1.0))


def test_wilcoxon_against_known_value():
    assert wilcoxon_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 2**6)
    assert wilcoxon_p([0.0, 0.0]) is None

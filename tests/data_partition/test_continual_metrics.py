import numpy as np
import pytest

from data_partition.continual_metrics import (
    NotMeasuredError,
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    capacity,
    forgetting,
    forward_transfer,
    transfer_gain,
)

NAN = float("nan")
# Task 0 rises from .7 to .9, then falls to .6; task 1 falls from .8 to .5; task 2 ends at .7.
HAND = np.array([[0.7, 0.3, NAN], [0.9, 0.8, 0.4], [0.6, 0.5, 0.7]])


def matrices(number=50, seed=0):
    """Random complete matrices of 2 to 6 tasks."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(size=(size, size)) for size in rng.integers(2, 7, number)]


def test_by_hand():
    assert average_accuracy(HAND) == pytest.approx((0.6 + 0.5 + 0.7) / 3)
    assert backward_transfer(HAND) == pytest.approx(((0.6 - 0.7) + (0.5 - 0.8)) / 2) == pytest.approx(-0.2)
    assert forgetting(HAND) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.5)) / 2) == pytest.approx(0.3)
    assert forward_transfer(HAND, [NAN, 0.25, 0.5]) == pytest.approx(((0.3 - 0.25) + (0.4 - 0.5)) / 2) == pytest.approx(-0.025)
    assert transfer_gain(HAND, [0.6, 0.7, 0.75]) == pytest.approx((0.1 + 0.1 - 0.05) / 3)
    assert capacity(300, 200) == 1.5


def test_the_scores_of_the_first_tasks_are_those_of_a_corner():
    corner = HAND[:2, :2]
    assert average_accuracy(corner) == pytest.approx(0.85)
    assert backward_transfer(corner) == pytest.approx(0.2)
    assert forgetting(corner) == pytest.approx(-0.2)  # a task that later ones improved was not forgotten
    assert average_accuracy(HAND[:1, :1]) == 0.7


def test_without_change_nothing_is_forgotten():
    for matrix in matrices():
        learned = np.diagonal(matrix).copy()
        kept = np.where(np.tri(len(matrix), dtype=bool), learned, np.nan)
        assert forgetting(kept) == backward_transfer(kept) == 0.0
        assert average_accuracy(kept) == pytest.approx(learned.mean())
        assert transfer_gain(kept, list(learned)) == 0.0


def test_forgetting_is_at_least_minus_backward_transfer_and_equal_with_two_tasks():
    gaps = []
    for matrix in matrices():
        gaps.append(forgetting(matrix) + backward_transfer(matrix))
        assert gaps[-1] >= -1e-12
        pair = matrix[:2, :2]
        assert forgetting(pair) == pytest.approx(-backward_transfer(pair))
        assert -1 <= backward_transfer(matrix) <= 1
    assert max(gaps) > 0.1


def test_scores_without_zero_shot_accuracies_do_not_read_them():
    for matrix in matrices(10):
        lower = np.where(np.tri(len(matrix), dtype=bool), matrix, np.nan)
        for score in (average_accuracy, backward_transfer, forgetting):
            assert score(lower) == score(matrix)
        assert transfer_gain(lower, [0.5] * len(lower)) == transfer_gain(matrix, [0.5] * len(lower))


def test_forgetting_ignores_what_was_guessed_before_a_task_was_learned():
    lucky = HAND.copy()
    lucky[0, 1] = 1.0
    assert forgetting(lucky) == forgetting(HAND)


def test_a_uniform_rise_moves_accuracy_alone():
    for matrix in matrices(10):
        assert average_accuracy(matrix + 0.1) == pytest.approx(average_accuracy(matrix) + 0.1)
        assert backward_transfer(matrix + 0.1) == pytest.approx(backward_transfer(matrix))
        assert forgetting(matrix + 0.1) == pytest.approx(forgetting(matrix))


def test_the_matrix_of_single_measurements():
    matrix = accuracy_matrix({(1, 0): 0.9, (2, 0): 0.6, (2, 1): 0.8, (1, 1): 0.4}, 2)
    assert matrix.tolist() == [[0.9, 0.4], [0.6, 0.8]]
    assert np.isnan(accuracy_matrix({}, 3)).all()
    for wrong in ((0, 0), (3, 0), (1, 2), (1, -1)):
        with pytest.raises(ValueError, match=f"task {wrong[1]} after {wrong[0]} tasks: expected a task from 0 to 1"):
            accuracy_matrix({wrong: 0.5}, 2)


def without(*entry):
    matrix = HAND.copy()
    matrix[entry] = NAN
    return matrix


@pytest.mark.parametrize(
    ("score", "entry"),
    [
        (average_accuracy, (2, 1)),
        (backward_transfer, (2, 0)),
        (backward_transfer, (1, 1)),
        (forgetting, (1, 0)),
        (forgetting, (2, 1)),
        (forgetting, (1, 1)),
        (lambda matrix: forward_transfer(matrix, [0.0] * 3), (1, 2)),
        (lambda matrix: transfer_gain(matrix, [0.0] * 3), (2, 2)),
    ],
)
def test_an_entry_that_was_not_measured_is_named(score, entry):
    score(HAND)
    with pytest.raises(NotMeasuredError, match=rf"R\[{entry[0]}, {entry[1]}\] not measured"):
        score(without(*entry))


def test_references_that_were_not_measured_are_named():
    with pytest.raises(NotMeasuredError, match="task 2 before any task"):
        forward_transfer(HAND, [0.1, 0.1, NAN])
    with pytest.raises(NotMeasuredError, match="task 0, 2 learned from scratch"):
        transfer_gain(HAND, [NAN, 0.1, NAN])
    for score in (forward_transfer, transfer_gain):
        with pytest.raises(ValueError, match=r"shape \(2,\), expected one accuracy for each of 3"):
            score(HAND, [0.1, 0.1])


@pytest.mark.parametrize("score", [backward_transfer, forgetting, lambda matrix: forward_transfer(matrix, [0.0])])
def test_one_task_has_nothing_to_transfer_to(score):
    with pytest.raises(ValueError, match=r"shape \(1, 1\).*2 or more"):
        score(np.array([[0.5]]))


def test_what_is_no_matrix_is_refused():
    for wrong in (np.zeros((2, 3)), np.zeros(2), np.zeros((0, 0))):
        with pytest.raises(ValueError, match="expected"):
            average_accuracy(wrong)
    for numbers in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="above 0"):
            capacity(*numbers)

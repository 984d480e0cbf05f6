import numpy as np
import pytest

from strategies.averaging import column_mean, weighted_mean


def test_hand_computed():
    mean = weighted_mean([({"w": np.array([0.0, 2.0])}, 1.0), ({"w": np.array([4.0, 4.0])}, 3.0)])
    assert mean["w"].tolist() == [3.0, 3.5]
    assert mean["w"].dtype == np.float32


def test_float16_is_summed_without_overflow():
    big = {"w": np.full(3, 60000, np.float16)}
    assert weighted_mean([(big, 1.0), (big, 1.0)])["w"].tolist() == [60000.0] * 3


def test_equal_clients_average_to_themselves():
    value = {"w": np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)}
    assert np.array_equal(weighted_mean([(value, 3.0), (value, 5.0), (value, 11.0)])["w"], value["w"])


@pytest.mark.parametrize("tensors", [[], [({"w": np.ones(2)}, 0.0)]])
def test_nothing_to_average(tensors):
    with pytest.raises(ValueError, match="nothing to average"):
        weighted_mean(tensors)


def test_columns_are_averaged_over_those_that_kept_them():
    old = np.full((2, 4), 9.0, np.float32)
    first, second = np.array([[1.0, 2, 3, 4]] * 2, np.float32), np.array([[5.0, 6, 7, 8]] * 2, np.float32)
    mean = column_mean(old, [(first, 1.0, [0, 1]), (second, 3.0, [1, 2])])
    assert mean.tolist() == [[1.0, 5.0, 7.0, 9.0]] * 2  # (2 + 3 x 6) / 4; nobody kept the last
    assert mean.dtype == np.float32


def test_all_columns_kept_is_the_weighted_mean():
    rng = np.random.default_rng(0)
    clients = [(rng.normal(size=(3, 4)).astype(np.float32), weight) for weight in (1.0, 2.0)]
    means = weighted_mean([({"w": matrix}, weight) for matrix, weight in clients])["w"]
    kept = [(matrix, weight, [0, 1, 2, 3]) for matrix, weight in clients]
    assert np.array_equal(column_mean(np.zeros((3, 4)), kept), means)

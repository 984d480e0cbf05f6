import numpy as np
import pytest

from strategies.averaging import weighted_mean


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

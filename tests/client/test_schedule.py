import math

import pytest

from client.schedule import column_price, learning_rate, passed
from config import Model, Train


def rates(schedule, total=100, **fields):
    train = Train(schedule=schedule, learning_rate=1.0, **fields)
    return [learning_rate(train, step, total) for step in range(total)]


def test_cosine_by_hand():
    values = rates("cosine", warmup=0.1)
    assert values[0] == pytest.approx(0.1)
    assert values[9] == pytest.approx(1.0)
    assert values[55] == pytest.approx((1 + math.cos(math.pi * 0.5)) / 2)
    assert values[99] < 0.001
    assert max(values) == pytest.approx(1.0)


def test_constant_warms_up_and_stays():
    values = rates("constant", warmup=0.5)
    assert values[24] == pytest.approx(0.5)
    assert set(values[50:]) == {1.0}


def test_one_cycle_peaks_at_30_percent():
    values = rates("one-cycle")
    assert values.index(max(values)) == 29
    assert values[0] < 0.06
    assert values[-1] == pytest.approx(1 / 25e4)


def test_steps_fall_at_the_milestones():
    values = rates("steps", warmup=0.1)
    assert values[4] == pytest.approx(0.5)
    assert values[9:50] == [1.0] * 41
    assert values[50:80] == pytest.approx([0.1] * 30)
    assert values[80:] == pytest.approx([0.01] * 20)
    assert rates("steps", 4, warmup=0.0, milestones="0.25, 0.3", milestone_factor=0.5) == [1.0, 0.5, 0.25, 0.25]


def test_a_milestone_is_a_whole_step_although_shares_are_binary():
    for percent in range(1, 100):
        assert [passed([percent / 100], step, 100) for step in (percent - 1, percent)] == [0, 1]
    assert passed([0.5], 0, 1) == 0


def test_one_step_without_warmup():
    assert learning_rate(Train(warmup=0.0, learning_rate=1.0), 0, 1) == 1.0


def test_columns_cost_nothing_before_the_warm_up_is_over():
    model = Model(adaptive_k="prefix", k_penalty=0.5, k_warmup=0.3)
    assert [column_price(model, step, 10) for step in (0, 2, 3, 9)] == [0.0, 0.0, 0.5, 0.5]
    assert column_price(Model(k_penalty=0.5), 9, 10) == 0.0

"""What is done to summed rewards, by hand and against statistics of everything at once."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmjax.rewards import combine
from rmjax.rewards.combine import Running

INTS = np.array([1, -3, 2])


def test_whole_numbers_are_not_truncated():
    for got, want in (
        (combine.clip(INTS, low=-0.5, high=1.5), [1, -0.5, 1.5]),
        (combine.length_penalty(INTS, np.array([1, 10, 0]), coef=0.25), [0.75, -5.5, 2]),
        (
            combine.stop_or_penalty(INTS, np.array([True, False, True]), penalty=-0.73),
            [1, -0.73, 2],
        ),
        (combine.stop_or_penalty(INTS, np.array([True, False, False])), [1, -1, -1]),
        (combine.normalize(INTS, Running(2.0, 0.5, 4.0)), [0.25, -1.75, 0.75]),
    ):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, np.float32(want))


def test_arrays_of_other_shapes_and_empty_ranges_are_refused():
    with pytest.raises(ValueError, match="low must be below high"):
        combine.clip(INTS, low=1.0, high=1.0)
    with pytest.raises(ValueError, match="differ in shape"):
        combine.length_penalty(INTS, np.ones((3, 1)), coef=0.1)
    with pytest.raises(ValueError, match="differ in shape"):
        combine.stop_or_penalty(INTS, np.ones((3, 1), bool))


batches = st.lists(st.lists(st.floats(-100, 100), max_size=5), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None, database=None)
@given(batches, st.floats(-1e6, 1e6))
def test_the_state_is_that_of_all_rewards_at_once_also_from_json(drawn, level):
    drawn = [np.array(b) + level for b in drawn]
    state = Running()
    for batch in drawn:
        state = Running(**json.loads(json.dumps(combine.update(state, batch)._asdict())))
    everything = np.concatenate(drawn)
    assert state.count == everything.size
    if everything.size:
        assert state.mean == pytest.approx(np.mean(everything), abs=1e-6)
        assert state.variance == pytest.approx(np.var(everything), rel=1e-6, abs=1e-6)
    else:
        assert state == Running()


def test_rewards_are_normalized_by_what_was_seen_before_them():
    first, second = np.array([1.0, 3.0]), np.array([2.0, 6.0])
    np.testing.assert_array_equal(combine.normalize(first, Running()), first)
    state = combine.update(Running(), first)
    np.testing.assert_allclose(combine.normalize(second, state), [0, 4])
    flat = combine.update(Running(), np.array([2.0, 2.0]))
    np.testing.assert_allclose(combine.normalize(second, flat), [0, 4])  # no spread: only the mean


def test_a_reward_that_is_not_finite_never_enters_the_state():
    with pytest.raises(ValueError, match="1 of 2 rewards are not finite"):
        combine.update(Running(), np.array([1.0, np.nan]))

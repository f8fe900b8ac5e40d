"""Rewards from resources: what is done with what they give."""

import numpy as np
import pytest

from rmjax.rewards import learned

PROMPTS, TEXTS = ["p", "pp"], ["a", "bcd"]
MEMBERS = np.array([[1, 4], [2, 4], [6, 1]])


def test_an_ensemble_is_one_score():
    def score(prompts, completions):
        assert (prompts, completions) == (PROMPTS, TEXTS)
        return MEMBERS

    call = lambda **options: learned.learned(PROMPTS, TEXTS, score, **options)
    np.testing.assert_allclose(call(), [3, 3])
    np.testing.assert_allclose(call(reduce="worst"), [1, 1])
    spread = np.sqrt([(4 + 1 + 9) / 3, (1 + 1 + 4) / 3])
    np.testing.assert_allclose(call(reduce="lower_bound", k=2.0), 3 - 2 * spread, rtol=1e-6)
    alone = learned.learned(PROMPTS, TEXTS, lambda p, c: np.array([7, 8]), reduce="lower_bound")
    np.testing.assert_allclose(alone, [7, 8])


def test_the_probability_of_a_label():
    found = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
    got = learned.class_probability(PROMPTS, TEXTS, lambda p, c: found, label=2)
    np.testing.assert_allclose(got, [0.7, 0.25])
    for label in (3, -1):
        with pytest.raises(ValueError, match="label must be in 0 .. 2"):
            learned.class_probability(PROMPTS, TEXTS, lambda p, c: found, label=label)


def test_the_implicit_reward_is_beta_times_the_log_ratio():
    got = learned.implicit(PROMPTS, TEXTS, lambda p, c: np.array([-3, 5]), beta=0.5)
    np.testing.assert_allclose(got, [-1.5, 2.5])
    with pytest.raises(ValueError, match="beta"):
        learned.implicit(PROMPTS, TEXTS, lambda p, c: np.zeros(2), beta=0.0)


def test_ratings_are_looked_up_and_unknown_texts_refused():
    table = {"a": 2, "z": 5}
    np.testing.assert_array_equal(learned.looked_up(["z", "a"], table), [5, 2])
    with pytest.raises(ValueError, match="1 of 2 completions have no rating"):
        learned.looked_up(TEXTS, table)
    np.testing.assert_array_equal(learned.looked_up(TEXTS, table, missing=0.73), np.float32([2, 0.73]))  # fmt: skip


def test_other_shapes_and_options_are_refused():
    wrong = lambda p, c: np.zeros((2, 3))
    for call in (
        lambda: learned.learned(PROMPTS, TEXTS, wrong),
        lambda: learned.learned(PROMPTS, TEXTS, lambda p, c: np.zeros((2, 2, 2))),
        lambda: learned.class_probability(PROMPTS, TEXTS, lambda p, c: np.zeros(2), label=0),
        lambda: learned.class_probability(PROMPTS, TEXTS, lambda p, c: np.zeros((3, 2)), label=0),
        lambda: learned.implicit(PROMPTS, TEXTS, wrong),
    ):
        with pytest.raises(ValueError, match="gave shape"):
            call()
    for options in ({"reduce": "max"}, {"k": -1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            learned.learned(PROMPTS, TEXTS, lambda p, c: MEMBERS, **options)

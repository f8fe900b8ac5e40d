"""Filters against plain numpy; settings outside their range, and those that break log-probabilities."""

import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.sampling import filters
from rmjax.sampling.filters import Settings

LOGITS = np.random.default_rng(0).normal(size=(4, 3, 11)).astype(np.float32) * 3
FLAT = LOGITS.reshape(-1, 11)


def agrees(got, want):
    np.testing.assert_allclose(np.asarray(got).reshape(-1, 11), want, rtol=1e-6)


def kept_of(rule):
    """FLAT with all but those tokens at -inf that rule(row of float64) lists."""
    found = np.full(FLAT.shape, -np.inf)
    for row, own in zip(found, FLAT, strict=True):
        keep = rule(own.astype(np.float64))
        row[keep] = own[keep]
    return found


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize("k", [1, 4, 11, 20])
def test_top_k_keeps_the_k_largest(k):
    agrees(filters.top_k(jnp.asarray(LOGITS), k=k), kept_of(lambda x: np.argsort(-x)[:k]))


@pytest.mark.parametrize("p", [1e-6, 0.4, 0.9, 1.0])
def test_top_p_keeps_the_fewest_of_that_probability(p):
    def rule(x):
        order = np.argsort(-x)
        return order[: 1 + np.searchsorted(np.cumsum(softmax(x)[order]), p)]

    agrees(filters.top_p(jnp.asarray(LOGITS), p=p), kept_of(rule))


@pytest.mark.parametrize("p", [0.01, 0.3, 1.0])
def test_min_p_keeps_what_is_likely_enough(p):
    rule = lambda x: softmax(x) >= p * softmax(x).max()
    agrees(filters.min_p(jnp.asarray(LOGITS), p=p), kept_of(rule))


def test_temperature_divides():
    agrees(filters.temperature(jnp.asarray(LOGITS), value=0.5), FLAT * 2)


def test_repetition_penalty_makes_present_tokens_less_likely():
    present = np.random.default_rng(1).uniform(size=LOGITS.shape) < 0.5
    got = filters.repetition_penalty(jnp.asarray(LOGITS), jnp.asarray(present), penalty=1.5)
    want = [x / 1.5 if x > 0 else x * 1.5 for x in LOGITS[present]]
    np.testing.assert_allclose(np.asarray(got)[present], want, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(got)[~present], LOGITS[~present])
    assert np.all(np.asarray(got)[present] < LOGITS[present])


def test_stop_tokens_wait_for_the_minimum():
    count = jnp.array([[0, 1, 2], [1, 2, 3], [2, 2, 2], [5, 0, 1]])
    got = np.asarray(filters.without_stops(jnp.asarray(LOGITS), count, (2, 7), 2))
    refused = np.isneginf(got)
    np.testing.assert_array_equal(refused[..., 2], np.asarray(count) < 2)
    np.testing.assert_array_equal(refused[..., 7], np.asarray(count) < 2)
    assert refused.sum() == 2 * (np.asarray(count) < 2).sum()


def test_all_together_come_in_the_customary_order():
    present = np.zeros(LOGITS.shape, bool)
    present[..., :3] = True
    settings = Settings(9, 0.7, 6, 0.8, 0.1, 1.3, (10,), 4)
    count = jnp.zeros(LOGITS.shape[:2], jnp.int32)
    got = filters.apply(jnp.asarray(LOGITS), count, jnp.asarray(present), settings)
    x = filters.repetition_penalty(jnp.asarray(LOGITS), jnp.asarray(present), penalty=1.3)
    x = filters.temperature(x.at[..., 10].set(-jnp.inf), value=0.7)
    want = filters.min_p(filters.top_p(filters.top_k(x, k=6), p=0.8), p=0.1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_defaults_change_nothing():
    count = jnp.zeros(LOGITS.shape[:2], jnp.int32)
    got = filters.apply(jnp.asarray(LOGITS), count, None, Settings(4, stop_tokens=(1,)))
    np.testing.assert_array_equal(got, LOGITS)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"top_p": 0.9}, "top_p"),
        ({"min_p": 0.1}, "min_p"),
        ({"repetition_penalty": 1.2}, "repetition_penalty"),
        ({"min_new_tokens": 2}, "min_new_tokens"),
    ],
)
def test_settings_that_break_log_probabilities_are_named(changes, name):
    plain = Settings(4, temperature=0.7, stop_tokens=(1,))
    assert filters.exact(plain)
    filters.require_exact(plain)
    settings = plain._replace(**changes)
    assert not filters.exact(settings)
    with pytest.raises(ValueError, match=f"policy's own, but {name}="):
        filters.require_exact(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"min_new_tokens": 5}, r"min_new_tokens must be in \[0, max_new_tokens 4\]"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"temperature": float("inf")}, "temperature must be positive and finite"),
        ({"top_k": -1}, "top_k must be positive"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"min_p": 1.5}, r"min_p must be in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive"),
    ],
)
def test_settings_outside_their_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        filters.check(Settings(4)._replace(**changes))


@pytest.mark.parametrize(
    ("function", "option", "value"),
    [("temperature", "value", 0.0), ("top_k", "k", 0), ("top_p", "p", 1.1), ("min_p", "p", 0.0)],
)
def test_filters_check_their_hyperparameters(function, option, value):
    with pytest.raises(ValueError, match=function):
        getattr(filters, function)(jnp.asarray(LOGITS), **{option: value})

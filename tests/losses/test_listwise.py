"""Listwise losses against sums over orderings, closed forms, and the pairwise loss they contain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rmjax.losses import listwise, pairwise

RNG = np.random.default_rng(0)
K = 5
SCORES = RNG.normal(size=(6, K)) * 2
RATINGS = np.array([RNG.permutation(K) for _ in range(6)], float)  # without ties
LOSSES = (listwise.plackett_luce, listwise.listnet, listwise.info_nce)


def run(loss, scores, ratings, mask=None, **options):
    """The loss of arrays or lists, in float32."""
    scores, ratings = (jnp.asarray(x, jnp.float32) for x in (scores, ratings))
    mask = jnp.ones(scores.shape, bool) if mask is None else jnp.asarray(mask)
    return loss(scores, ratings, mask, **options)


def luce(order, scores):
    """Probability that items are drawn in this order, each with chance proportional to exp(score)."""
    strength = np.exp(scores)
    rest = [strength[order[i:]].sum() for i in range(len(order))]
    return np.prod(strength[order] / rest)


def test_plackett_luce_is_a_distribution_over_orderings():
    for scores in SCORES[:2, :4]:
        orders = [np.array(order) for order in itertools.permutations(range(4))]
        want = np.array([luce(order, scores) for order in orders])
        assert want.sum() == pytest.approx(1)
        ratings = np.empty((len(orders), 4))
        for row, order in zip(ratings, orders, strict=True):
            row[order] = [4, 3, 2, 1]
        got = run(listwise.plackett_luce, np.broadcast_to(scores, ratings.shape), ratings)
        np.testing.assert_allclose(np.exp(-got), want, rtol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_first_places_alone_are_the_sum_over_what_may_follow(top_k):
    got = run(listwise.plackett_luce, SCORES, RATINGS, top_k=top_k)
    for value, scores, ratings in zip(got, SCORES, RATINGS, strict=True):
        order = np.argsort(-ratings)
        first, rest = order[:top_k], order[top_k:]
        chance = sum(luce(np.array([*first, *p]), scores) for p in itertools.permutations(rest))
        assert value == pytest.approx(-np.log(chance), rel=1e-5)


def test_best_of_k_is_a_softmax_with_or_without_top_k():
    best = np.eye(K)[[0, 3, 4, 1, 2, 2]]
    want = -np.sum(best * special.log_softmax(SCORES, axis=1), axis=1)
    for options in ({}, {"top_k": 1}):
        got = run(listwise.plackett_luce, SCORES, best, **options)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(run(listwise.info_nce, SCORES, best), want, rtol=1e-5)


def test_tied_items_are_masked_from_each_other():
    a, b, c, d = scores = np.array([0.3, -1.0, 0.8, 0.1])
    against = lambda x, *others: special.logsumexp([x, *others]) - x
    got = run(listwise.plackett_luce, scores, [2.0, 2.0, 1.0, 0.0])
    want = against(a, c, d) + against(b, c, d) + against(c, d)
    assert got == pytest.approx(want, rel=1e-5)
    got = run(listwise.plackett_luce, scores, [2.0, 2.0, 1.0, 0.0], top_k=2)
    assert got == pytest.approx(want - against(c, d), rel=1e-5)
    got = run(listwise.info_nce, scores, [2.0, 2.0, 1.0, 0.0])
    assert got == pytest.approx((against(a, c, d) + against(b, c, d)) / 2, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_listnet_is_a_cross_entropy_least_at_the_ratings(temperature):
    share = special.softmax(RATINGS / temperature, axis=1)
    want = -np.sum(share * special.log_softmax(SCORES, axis=1), axis=1)
    got = run(listwise.listnet, SCORES, RATINGS, temperature=temperature)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    least = run(listwise.listnet, RATINGS / temperature + 7, RATINGS, temperature=temperature)
    np.testing.assert_allclose(least, stats.entropy(share, axis=1), rtol=1e-4)
    slope = jax.grad(lambda s: jnp.sum(run(listwise.listnet, s, RATINGS, temperature=temperature)))
    np.testing.assert_allclose(slope(jnp.asarray(RATINGS / temperature)), 0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_info_nce_with_one_negative_is_bradley_terry_of_the_gap_over_the_temperature(temperature):
    chosen, rejected = (jnp.asarray(x, jnp.float32) for x in SCORES[:, :2].T)
    want = pairwise.bradley_terry(chosen / temperature, rejected / temperature)
    got = run(listwise.info_nce, SCORES[:, :2], [[1.0, 0.0]] * 6, temperature=temperature)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_two_items_are_bradley_terry():
    want = pairwise.bradley_terry(*jnp.asarray(SCORES[:, :2].T, jnp.float32))
    got = run(listwise.plackett_luce, SCORES[:, :2], [[5.0, 3.0]] * 6)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_the_mask_leaves_out_changes_nothing(loss):
    mask = np.array([[True, False, True, True, False]] * 6)
    want = run(loss, SCORES[:, [0, 2, 3]], RATINGS[:, [0, 2, 3]])

    def total(scores, ratings):
        value = run(loss, scores, ratings, mask)
        return jnp.sum(value), value

    for junk in (0.0, 1000.0, np.nan, np.inf):
        scores, ratings = (np.where(mask, x, junk) for x in (SCORES, RATINGS))
        grad, value = jax.grad(total, has_aux=True)(jnp.asarray(scores), jnp.asarray(ratings))
        np.testing.assert_allclose(value, want, rtol=1e-5)
        assert np.all(np.isfinite(grad)) and not np.any(grad[~mask])


@pytest.mark.parametrize("loss", LOSSES)
def test_groups_without_an_order_cost_nothing(loss):
    scores = jnp.asarray(SCORES[:3], jnp.float32)
    ratings = jnp.asarray([[2.0] * K, [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    mask = jnp.asarray([[True] * K, [False, True, False, False, False], [False] * K])
    both = jax.value_and_grad(lambda s: jnp.sum(loss(s, ratings, mask)))
    value, grad = both(scores)
    assert value == 0 and not np.any(grad)


@pytest.mark.parametrize("loss", LOSSES)
def test_large_scores_keep_value_and_gradient_finite(loss):
    scores = jnp.asarray([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 1000.0]])
    ratings = jnp.asarray([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    value, grad = jax.value_and_grad(lambda s: jnp.sum(run(loss, s, ratings)))(scores)
    assert np.isfinite(value) and value > 900 and np.all(np.isfinite(grad)) and np.any(grad)

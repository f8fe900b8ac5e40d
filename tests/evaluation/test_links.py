"""The losses' own probabilities against the losses themselves, simulation and scipy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rmjax.evaluation import links
from rmjax.losses import pairwise, pointwise

RNG = np.random.default_rng(0)
GAP = np.array([-3.0, -0.4, 0.0, 0.7, 2.5])
f32 = lambda x: jnp.asarray(x, jnp.float32)
ZERO = f32(np.zeros(5))


def test_bradley_terry_and_thurstone_are_exp_of_minus_the_loss():
    want = np.exp(-pairwise.bradley_terry(f32(GAP), ZERO))
    np.testing.assert_allclose(links.bradley_terry(GAP), want, rtol=1e-5)
    for scale in (1.0, 0.3):
        want = np.exp(-pairwise.thurstone(f32(GAP), ZERO, scale=scale))
        np.testing.assert_allclose(links.thurstone(GAP, scale=scale), want, rtol=1e-4)


@pytest.mark.parametrize("tie_width", [-2.0, 0.5])
def test_rao_kupper_is_a_win_and_half_a_tie(tie_width):
    width, ones = f32(tie_width), f32(np.ones(5))
    win = np.exp(-pairwise.rao_kupper(f32(GAP), ZERO, width))
    tie = np.exp(-pairwise.rao_kupper(f32(GAP), ZERO, width, ones))
    np.testing.assert_allclose(links.rao_kupper(GAP, tie_width), win + tie / 2, rtol=1e-5)


def test_gaussian_is_how_often_one_draw_is_above_another():
    log_variance, other = np.array([0.5, -1.0]), np.array([-0.3, 1.0])
    gap = np.array([0.8, -0.5])
    draws = RNG.normal(size=(2, 200_000, 2))
    first = gap + np.exp(log_variance / 2) * draws[0]
    want = np.mean(first > np.exp(other / 2) * draws[1], axis=0)
    np.testing.assert_allclose(links.gaussian(gap, log_variance, other), want, atol=4e-3)


def test_distributions_compare_every_pair_of_classes():
    first, second = RNG.dirichlet(np.ones(4), (2, 3))
    classes = np.arange(4)
    above = (classes[:, None] > classes) + 0.5 * (classes[:, None] == classes)
    want = [p @ above @ q for p, q in zip(first, second, strict=True)]
    got = links.distributions(first, second)
    np.testing.assert_allclose(got, want)
    np.testing.assert_allclose(links.distributions(second, first), 1 - got)
    square = links.distributions(first[:, None], second[None])
    np.testing.assert_allclose(np.diag(square), want)


def test_ordinal_shares_are_exp_of_minus_the_loss():
    score, thresholds = np.array([-1.0, 0.2, 3.0]), np.array([-1.5, 0.0, 1.0])
    got = links.ordinal(score, thresholds)
    assert got.shape == (3, 4)
    np.testing.assert_allclose(got.sum(axis=-1), 1)
    for label in range(4):
        labels = jnp.full(3, label)
        want = np.exp(-pointwise.ordinal(f32(score), f32(thresholds), labels))
        np.testing.assert_allclose(got[:, label], want, rtol=1e-4)


def test_the_logit_is_the_inverse_of_the_sigmoid_and_finite():
    np.testing.assert_allclose(links.logit(special.expit(GAP)), GAP)
    assert np.all(np.isfinite(links.logit(np.array([0.0, 1.0]))))
    np.testing.assert_allclose(
        links.logit(links.thurstone(np.array([0.6]))), special.logit(stats.norm.cdf(0.6 / 2**0.5))
    )

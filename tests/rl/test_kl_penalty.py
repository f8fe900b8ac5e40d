"""Divergences by enumeration, the adaptive coefficient by hand, KTO's point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.losses import policy
from rmjax.rl import kl_penalty

RNG = np.random.default_rng(0)
P, Q = (np.log(RNG.dirichlet(np.ones(6))) for _ in range(2))
LOG_P, LOG_Q = jnp.asarray(P, jnp.float32), jnp.asarray(Q, jnp.float32)
ESTIMATORS = (kl_penalty.k1, kl_penalty.k2, kl_penalty.k3)


def test_k1_and_k3_average_to_the_kl_and_k2_does_not():
    kl = np.sum(np.exp(P) * (P - Q))
    k1, k2, k3 = (float(np.exp(P) @ np.asarray(k(LOG_P, LOG_Q))) for k in ESTIMATORS)
    assert k1 == pytest.approx(kl, rel=1e-5) and k3 == pytest.approx(kl, rel=1e-5)
    assert k2 == pytest.approx(np.sum(np.exp(P) * (P - Q) ** 2) / 2, rel=1e-5) != pytest.approx(kl)
    assert np.any(kl_penalty.k1(LOG_P, LOG_Q) < 0) and np.all(kl_penalty.k3(LOG_P, LOG_Q) >= 0)


def test_they_are_the_losses_without_gradient():
    losses = (policy.kl_k1, policy.kl_k2, policy.kl_k3)
    for estimate, loss in zip(ESTIMATORS, losses, strict=True):
        np.testing.assert_allclose(estimate(LOG_P, LOG_Q), loss(LOG_P, LOG_Q), rtol=1e-6)
        assert not np.any(jax.grad(lambda x, f=estimate: jnp.sum(f(x, LOG_Q)))(LOG_P))
        far = jnp.asarray([1000.0, -1000.0])
        assert np.all(np.isfinite(estimate(far, jnp.zeros(2))))
        assert np.all(np.isfinite(estimate(-far, far)))


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1.01), (60.0, 1.02), (5.4, 0.99), (-2.0, 0.98)],
)
def test_beta_follows_the_divergence_within_a_fifth(kl, factor):
    got = kl_penalty.adapt_beta(0.15, kl, episodes=1000)
    assert float(got) == pytest.approx(0.15 * factor, rel=1e-5)
    other = kl_penalty.adapt_beta(
        jnp.asarray(0.15), jnp.asarray(kl), episodes=64, target=3.0, horizon=640
    )
    want = 0.15 * (1 + 0.1 * np.clip(kl / 3 - 1, -0.2, 0.2))
    assert float(other) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes must be in"),
        ({"episodes": 50_000}, "episodes must be in"),
        ({"episodes": 1, "target": 0.0}, "target must be positive"),
    ],
)
def test_updates_that_would_turn_beta_around_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        kl_penalty.adapt_beta(0.1, 1.0, **options)


def test_kto_point_is_the_mean_where_positive():
    assert float(kl_penalty.kto_point(jnp.asarray([1.0, -0.5, 2.5]))) == pytest.approx(1.0)
    assert float(kl_penalty.kto_point(jnp.asarray([1.0, -3.0]))) == 0
    assert not np.any(jax.grad(kl_penalty.kto_point)(jnp.asarray([1.0, 2.0])))
    with pytest.raises(ValueError, match="at least 2 texts, got 1"):
        kl_penalty.kto_point(jnp.asarray([1.0]))

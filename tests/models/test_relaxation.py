"""Noise given a draw is the noise that draws, and what passes back is the relaxed gradient, known by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from rmjax.models import relaxation

LOGITS = jnp.asarray([0.7, -0.4, 1.5, 0.0, -3.0])


def draws(logits, count, seed=0):
    """Tokens drawn from softmax(logits), and noise given each: [N], [N, V]."""
    drawn = jax.random.categorical(jax.random.key(seed), logits, shape=(count,))
    many = jnp.broadcast_to(logits, (count, len(logits)))
    return drawn, relaxation.noise_of(jax.random.key(seed + 1), many, drawn)


def test_the_draw_is_the_largest_and_the_noise_is_gumbel():
    drawn, noise = draws(LOGITS, 20_000)
    np.testing.assert_array_equal(jnp.argmax(LOGITS[None] + noise, axis=1), drawn)
    for column in np.asarray(noise).T:
        assert stats.kstest(column, "gumbel_r").pvalue > 1e-3
    assert np.max(np.abs(np.corrcoef(np.asarray(noise).T) - np.eye(5))) < 0.03  # independent


def slope(logits, noise, pay, temperature):
    """Of R = pay @ one-hot token, the straight-through gradient in the logits."""
    loss = lambda x: jnp.sum(relaxation.slope(pay[:, None], x, noise, temperature=temperature))
    value, grad = jax.value_and_grad(loss)(logits)
    assert value == 0
    return grad


def test_a_drawn_tokens_embedding_is_what_it_was_and_moves_as_the_softmax():
    drawn, noise = draws(LOGITS, 1)
    pay = jnp.asarray([1.0, -2.0, 0.5, 3.0, 0.0])
    got = slope(LOGITS[None], noise, pay, 0.7)[0]
    soft = lambda x: special.softmax((x + np.asarray(noise[0], np.float64)) / 0.7) @ np.asarray(pay)
    for i, e in enumerate(np.eye(5) * 1e-5):
        want = (soft(np.asarray(LOGITS) + e) - soft(np.asarray(LOGITS) - e)) / 2e-5
        assert got[i] == pytest.approx(want, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_a_linear_reward_of_one_step_has_the_relaxed_gradient(temperature):
    """Of two tokens the difference of Gumbels is logistic, so one integral gives the expectation."""
    gap, pay = 0.8, jnp.asarray([2.0, -1.0])
    logits = jnp.asarray([gap, 0.0])

    def expected(temperature):
        s = lambda u: special.expit((gap + u) / temperature)
        inside = lambda u: stats.logistic.pdf(u) * s(u) * (1 - s(u)) / temperature * 3.0
        return integrate.quad(inside, -40, 40, points=[-gap])[0]

    _, noise = draws(logits, 20_000)
    found = np.asarray(slope(jnp.broadcast_to(logits, noise.shape), noise, pay, temperature))[:, 0]
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - expected(temperature)) < 4 * error < 0.1 * expected(temperature)
    true = special.expit(gap) * special.expit(-gap) * 3.0
    assert expected(0.01) == pytest.approx(true, rel=1e-3)  # at temperature -> 0 the true one
    assert abs(expected(temperature) - true) > 4 * error

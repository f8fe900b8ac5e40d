"""Advantages and targets against rlax, completion by completion, wherever these stand in their rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rmjax.rl import returns

RNG = np.random.default_rng(0)
LENGTHS, T = (7, 4, 1), 7
MASKS = {
    "right": np.arange(T) < np.array(LENGTHS)[:, None],
    "left": np.arange(T) >= T - np.array(LENGTHS)[:, None],
    "gaps": np.array([[1] * 7, [0, 1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0]], bool),
}
REWARDS, VALUES, LOG_RATIOS = RNG.normal(size=(3, 3, T)).astype("f")
BOOTSTRAP = RNG.normal(size=3).astype("f")
GAMMA, LAMBDA = 0.9, 0.8


def run(function, mask, *arrays, **options):
    """The function with NaN off the mask, which must come out as 0 there."""
    spoiled = [jnp.where(mask, x, jnp.nan) for x in arrays]
    found = function(*spoiled, jnp.asarray(mask, jnp.float32), discount=GAMMA, **options)
    for x in jax.tree.leaves(found):
        assert not np.any(np.asarray(x)[~mask])
    return found


def texts(mask):
    """(index, rewards, values, values of the next state, discounts) of each completion."""
    for i, here in enumerate(mask):
        for end in (None, BOOTSTRAP[i]):
            values = VALUES[i, here]
            ahead = np.append(values[1:], 0.0 if end is None else end).astype("f")
            yield i, end is not None, REWARDS[i, here], values, ahead, np.full_like(values, GAMMA)


def compare(mask, plain, bootstrapped, reference):
    for i, cut, rewards, values, ahead, discounts in texts(mask):
        want = reference(i, *map(jnp.asarray, (rewards, values, ahead, discounts)))
        found = bootstrapped if cut else plain
        got = jax.tree.map(lambda x, i=i: x[i, mask[i]], found)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), got, want)


each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def both(function, mask, *arrays, **options):
    plain = run(function, mask, *arrays, **options)
    return plain, run(function, mask, *arrays, bootstrap=jnp.asarray(BOOTSTRAP), **options)


@each_mask
def test_gae(mask):
    def reference(_, rewards, values, ahead, discounts):
        every = jnp.append(values, ahead[-1])
        return rlax.truncated_generalized_advantage_estimation(rewards, discounts, LAMBDA, every)

    compare(mask, *both(returns.gae, mask, REWARDS, VALUES, decay=LAMBDA), reference)


@each_mask
def test_lambda_returns_are_gae_and_the_values(mask):
    found = both(returns.lambda_returns, mask, REWARDS, VALUES, decay=LAMBDA)
    reference = lambda _, rewards, values, ahead, discounts: rlax.lambda_returns(
        rewards, discounts, ahead, LAMBDA
    )
    compare(mask, *found, reference)
    advantages = run(returns.gae, mask, REWARDS, VALUES, decay=LAMBDA)
    np.testing.assert_allclose(
        found[0], advantages + np.where(mask, VALUES, 0), rtol=1e-4, atol=1e-5
    )


@each_mask
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_n_step_returns(mask, steps):
    reference = lambda _, rewards, values, ahead, discounts: rlax.n_step_bootstrapped_returns(
        rewards, discounts, ahead, steps
    )
    found = both(returns.n_step_returns, mask, REWARDS, VALUES, steps=steps)
    compare(mask, *found, reference)


@each_mask
@pytest.mark.parametrize(("decay", "rho_max"), [(1.0, 1.0), (0.7, 1.0), (1.0, 2.5)])
def test_vtrace(mask, decay, rho_max):
    def reference(i, rewards, values, ahead, discounts):
        rho = jnp.exp(LOG_RATIOS[i, mask[i]])
        found = rlax.vtrace_td_error_and_advantage(
            values, ahead, rewards, discounts, rho, decay, rho_max, rho_max
        )
        targets = values + found.errors
        if (
            decay == 1
        ):  # below it rlax mixes values into the advantage's bootstrap, and we, as the paper, do not
            return targets, found.pg_advantage
        after = jnp.append(targets[1:], ahead[-1])
        return targets, jnp.minimum(rho, rho_max) * (rewards + GAMMA * after - values)

    arrays = REWARDS, VALUES, LOG_RATIOS
    compare(mask, *both(returns.vtrace, mask, *arrays, decay=decay, rho_max=rho_max), reference)


def test_vtrace_on_the_policy_itself_is_gae():
    mask = MASKS["right"]
    targets, advantages = run(returns.vtrace, mask, REWARDS, VALUES, 0 * LOG_RATIOS, decay=1.0)
    want = run(returns.gae, mask, REWARDS, VALUES, decay=1.0)
    np.testing.assert_allclose(advantages, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(targets, want + np.where(mask, VALUES, 0), rtol=1e-4, atol=1e-5)
    far = np.where(RNG.uniform(size=LOG_RATIOS.shape) < 0.5, 1000, -1000).astype("f")
    assert all(np.all(np.isfinite(x)) for x in run(returns.vtrace, mask, REWARDS, VALUES, far))


@each_mask
def test_expected_sarsa(mask):
    q = RNG.normal(size=(3, T, 4)).astype("f")
    chance = RNG.dirichlet(np.ones(4), (3, T)).astype("f")
    next_values = jnp.asarray(np.sum(q * chance, axis=-1))
    got = run(returns.expected_sarsa, mask, REWARDS, next_values)
    own = jnp.zeros(4)
    for i in range(3):
        at = np.flatnonzero(mask[i])
        for t in at:
            discount = jnp.asarray(GAMMA if t != at[-1] else 0.0)
            here = jnp.asarray(REWARDS[i, t]), discount, jnp.asarray(q[i, t])
            want = rlax.expected_sarsa(own, jnp.asarray(0), *here, jnp.asarray(chance[i, t]))
            np.testing.assert_allclose(got[i, t], want, rtol=1e-5, atol=1e-6)


@each_mask
def test_the_reward_is_paid_on_the_last_real_token(mask):
    reward, kl = np.array([2.0, -1.0, 0.5], "f"), RNG.normal(size=(3, T)).astype("f")
    spoiled = jnp.where(mask, kl, jnp.nan)
    got = returns.token_rewards(
        jnp.asarray(reward), spoiled, jnp.asarray(mask, jnp.float32), beta=0.3
    )
    want = np.where(mask, -0.3 * kl, 0)
    for i in range(3):
        want[i, np.flatnonzero(mask[i])[-1]] += reward[i]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        got.sum(axis=1), reward - 0.3 * np.where(mask, kl, 0).sum(axis=1), 1e-4
    )


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (returns.gae, {"discount": 1.1, "decay": 1.0}, "discount must be in"),
        (returns.gae, {"discount": 1.0, "decay": -0.1}, "decay must be in"),
        (returns.lambda_returns, {"discount": 1.0, "decay": 2.0}, "decay must be in"),
        (returns.n_step_returns, {"discount": 1.0, "steps": 0}, "steps must be at least 1, got 0"),
        (returns.n_step_returns, {"discount": -1.0, "steps": 1}, "discount must be in"),
        (returns.expected_sarsa, {"discount": 1.5}, "discount must be in"),
    ],
)
def test_numbers_outside_their_range_are_refused(function, options, message):
    ones = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=message):
        function(ones, ones, ones, **options)


def test_vtrace_refuses_a_ratio_of_zero():
    ones = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="rho_max must be positive"):
        returns.vtrace(ones, ones, ones, ones, discount=1.0, rho_max=0.0)
    with pytest.raises(ValueError, match="decay must be in"):
        returns.vtrace(ones, ones, ones, ones, discount=1.0, decay=1.5)


def test_nothing_is_differentiated():
    ones = jnp.ones((2, 3))
    for function in (
        lambda x: returns.gae(x, x, ones, discount=1.0, decay=0.5),
        lambda x: returns.lambda_returns(x, x, ones, discount=1.0, decay=0.5),
        lambda x: returns.n_step_returns(x, x, ones, discount=1.0, steps=2),
        lambda x: sum(returns.vtrace(x, x, x, ones, discount=1.0)),
        lambda x: returns.expected_sarsa(x, x, ones, discount=1.0),
        lambda x: returns.token_rewards(x[:, 0], x, ones, beta=0.1),
    ):
        assert not np.any(jax.grad(lambda x, f=function: jnp.sum(f(x)))(ones))

"""Rewards of tokens and values of states, as advantages and targets.

Legend: B completions, T tokens of each. rewards: u_t, for token t. values: V_t, of the state before token t. mask: 1 on
the completion's tokens, which may stand anywhere in the row; results are 0 elsewhere. bootstrap: value of the state
after the last token, [B]; without it a completion ends there (V = 0), a cut at the largest length too.
discount in [0, 1]; decay is lambda, in [0, 1]. Nothing here has a gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Tokens = Float[Array, "B T"]
Texts = Float[Array, " B"]


def token_rewards(
    reward: Texts, kl_k1: Tokens, mask: Tokens, *, beta: float | Float[Array, ""]
) -> Tokens:
    """u_t = -beta * k1_t, plus the completion's reward on its last token.

    kl_k1: log p - log p_ref of each token, in nats.
    beta: KL coefficient, in reward units per nat, >= 0.
    Source: Stiennon et al. 2020 (arXiv:2009.01325); Ziegler et al. 2019 (arXiv:1909.08593) eq. 2.
    """
    seen = mask > 0
    value = -beta * kl_k1 + jnp.where(_last(mask), reward[:, None], 0.0)
    return jax.lax.stop_gradient(jnp.where(seen, value, 0.0))


def gae(
    rewards: Tokens,
    values: Tokens,
    mask: Tokens,
    *,
    discount: float,
    decay: float,
    bootstrap: Texts | None = None,
) -> Tokens:
    """A_t = d_t + discount decay A_{t+1}, d_t = u_t + discount V_{t+1} - V_t.

    Value targets are A + V, of A before whitening: `lambda_returns`.
    Raises: ValueError if discount or decay is outside [0, 1].
    Source: Schulman et al. 2016 (arXiv:1506.02438) eq. 16.
    """
    _shares(discount=discount, decay=decay)
    end = _end(rewards, bootstrap)

    def step(after, reward, value):
        next_value, next_advantage = after
        advantage = reward + discount * next_value - value + discount * decay * next_advantage
        return (value, advantage), advantage

    return _backward(step, (end, jnp.zeros_like(end)), mask, rewards, values)


def lambda_returns(
    rewards: Tokens,
    values: Tokens,
    mask: Tokens,
    *,
    discount: float,
    decay: float,
    bootstrap: Texts | None = None,
) -> Tokens:
    """G_t = u_t + discount [(1 - decay) V_{t+1} + decay G_{t+1}], which is `gae` + V.

    Raises: ValueError if discount or decay is outside [0, 1].
    Source: Sutton & Barto 2018, section 12.1.
    """
    _shares(discount=discount, decay=decay)
    end = _end(rewards, bootstrap)

    def step(after, reward, value):
        next_value, next_return = after
        found = reward + discount * ((1 - decay) * next_value + decay * next_return)
        return (value, found), found

    return _backward(step, (end, end), mask, rewards, values)


def n_step_returns(
    rewards: Tokens,
    values: Tokens,
    mask: Tokens,
    *,
    discount: float,
    steps: int,
    bootstrap: Texts | None = None,
) -> Tokens:
    """sum_{k < steps} discount^k u_{t+k} + discount^steps V_{t+steps}; fewer rewards where the completion ends before.

    steps: >= 1; 1 is the TD target, the whole length the Monte Carlo return.
    Raises: ValueError if steps < 1 or discount is outside [0, 1].
    Source: Sutton & Barto 2018, eq. 7.1.
    """
    _shares(discount=discount)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    end = jnp.broadcast_to(_end(rewards, bootstrap), (steps, rewards.shape[0]))

    def step(after, reward, value):
        """after: returns of 0, 1 .. steps - 1 steps from the next token on, [steps, B]."""
        longer = reward[None] + discount * after
        return jnp.concatenate([value[None], longer[:-1]]), longer[-1]

    return _backward(step, end, mask, rewards, values)


def vtrace(
    rewards: Tokens,
    values: Tokens,
    log_ratios: Tokens,
    mask: Tokens,
    *,
    discount: float,
    decay: float = 1.0,
    rho_max: float = 1.0,
    bootstrap: Texts | None = None,
) -> tuple[Tokens, Tokens]:
    """Value targets v = V + e and advantages rho'_t (u_t + discount v_{t+1} - V_t) of texts another policy wrote.

    e_t = rho'_t d_t + discount c_t e_{t+1}, rho' = min(rho_max, rho), c = decay min(1, rho), d as in `gae`.
    log_ratios: log rho = log p - log p_old of each token.
    rho_max: largest ratio, > 0.
    Raises: ValueError on numbers outside their range.
    Source: Espeholt et al. 2018 (IMPALA, arXiv:1802.01561) eq. 1 and section 4.2; decay: their remark 2.
    """
    _shares(discount=discount, decay=decay)
    if not rho_max > 0:
        raise ValueError(f"rho_max must be positive, got {rho_max}")
    end = _end(rewards, bootstrap)

    def step(after, reward, value, log_ratio):
        next_value, next_target, next_error = after
        rho = jnp.exp(jnp.minimum(log_ratio, jnp.log(rho_max)))
        trace = decay * jnp.exp(jnp.minimum(log_ratio, 0.0))
        error = rho * (reward + discount * next_value - value) + discount * trace * next_error
        advantage = rho * (reward + discount * next_target - value)
        return (value, value + error, error), (value + error, advantage)

    return _backward(step, (end, end, jnp.zeros_like(end)), mask, rewards, values, log_ratios)


def expected_sarsa(
    rewards: Tokens, next_values: Tokens, mask: Tokens, *, discount: float
) -> Tokens:
    """y_t = u_t + discount sum_a p(a | s_{t+1}) Q'(s_{t+1}, a), the target of Q(s_t, a_t); y = u at the last token.

    next_values: that sum for the state after token t, of a lagged or stopped Q'.
    Raises: ValueError if discount is outside [0, 1].
    Source: van Seijen et al. 2009.
    """
    _shares(discount=discount)
    goes_on = (mask > 0) & ~_last(mask)
    target = rewards + jnp.where(goes_on, discount * next_values, 0.0)
    return jax.lax.stop_gradient(jnp.where(mask > 0, target, 0.0))


def _backward(step: Callable, end: PyTree, mask: Tokens, *arrays: Tokens) -> PyTree:
    """step(after, *arrays at t) -> (after, results), from the last token to the first; what is masked is skipped."""

    def at(after, now):
        here, *values = now
        new, found = step(after, *values)
        keep = lambda new, old: jnp.where(jnp.broadcast_to(here, new.shape), new, old)
        return jax.tree.map(keep, new, after), jax.tree.map(lambda x: keep(x, 0.0), found)

    wide = [jnp.asarray(x, jnp.float32).T for x in arrays]
    _, found = jax.lax.scan(at, end, (mask.T > 0, *wide), reverse=True)
    return jax.lax.stop_gradient(jax.tree.map(jnp.transpose, found))


def _end(rewards: Tokens, bootstrap: Texts | None) -> Texts:
    return jnp.zeros(rewards.shape[0]) if bootstrap is None else jnp.asarray(bootstrap, jnp.float32)


def _last(mask: Tokens) -> Array:
    """Whether a token is its completion's last; bool [B, T]."""
    seen = mask > 0
    after = jnp.cumsum(seen[:, ::-1], axis=1)[:, ::-1]
    return seen & (after == 1)


def _shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")

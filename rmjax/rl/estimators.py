"""The `returns` line of a config: from rewards of tokens and what a critic says to advantages and targets.

Legend: N texts, C tokens; arrays are [N, C], found by name: rewards, values, mask, q, and log_ratios, how much
likelier each token is now than when it was drawn; and ends [N], what the state behind a text is worth (0: nothing).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rmjax.rl import returns

Tokens = Float[Array, "N C"]
Texts = Float[Array, " N"]


class Estimate(NamedTuple):
    """How much better a token was than expected, and what the critic should have said, by the loss's name for it."""

    advantages: Tokens
    targets: dict[str, Tokens]


def gae(
    rewards: Tokens, values: Tokens, mask: Tokens, ends: Texts,
    *, discount: float = 1.0, decay: float = 0.95,
) -> Estimate:  # fmt: skip
    """Generalized advantages, and A + V as values' targets (Schulman et al. 2016)."""
    found = returns.gae(rewards, values, mask, discount=discount, decay=decay, bootstrap=ends)
    return Estimate(found, {"returns": found + values * mask})


def lambda_returns(
    rewards: Tokens, values: Tokens, mask: Tokens, ends: Texts,
    *, discount: float = 1.0, decay: float = 0.95,
) -> Estimate:  # fmt: skip
    """TD(lambda): the same as `gae`, by the recursion of its targets (Sutton & Barto 2018, section 12.1)."""
    found = returns.lambda_returns(
        rewards, values, mask, discount=discount, decay=decay, bootstrap=ends
    )
    return _less_values(found, values, mask)


def n_step(
    rewards: Tokens, values: Tokens, mask: Tokens, ends: Texts,
    *, steps: int, discount: float = 1.0,
) -> Estimate:  # fmt: skip
    """The rewards of `steps` tokens and the value after them (Mnih et al. 2016: as many as a rollout has)."""
    found = returns.n_step_returns(
        rewards, values, mask, discount=discount, steps=steps, bootstrap=ends
    )
    return _less_values(found, values, mask)


def vtrace(
    rewards: Tokens, values: Tokens, log_ratios: Tokens, mask: Tokens, ends: Texts,
    *, discount: float = 1.0, decay: float = 1.0, rho_max: float = 1.0,
) -> Estimate:  # fmt: skip
    """Targets and advantages of the policy as it is now on texts that it drew as it was (Espeholt et al. 2018).

    They are made anew before each further epoch over a rollout. The advantages hold the ratio: they are for
    policy_gradient(), not for losses with a ratio of their own.
    """
    targets, advantages = returns.vtrace(
        rewards, values, log_ratios, mask,
        discount=discount, decay=decay, rho_max=rho_max, bootstrap=ends,
    )  # fmt: skip
    return Estimate(advantages, {"returns": targets})


def expected_sarsa(
    rewards: Tokens, values: Tokens, q: Tokens, mask: Tokens, *, discount: float = 1.0
) -> Estimate:
    """A = Q - V, and u + discount V of the next state as Q's target, V = sum_a p(a | s) Q(s, a) (van Seijen 2009).

    Both are by the critic at the start of the rollout: where that is learned from more than once, it lags by so much.
    """
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    target = returns.expected_sarsa(rewards, following, mask, discount=discount)
    return Estimate((q - values) * mask, {"q_target": target})


RETURNS = {f.__name__: f for f in (gae, lambda_returns, n_step, vtrace, expected_sarsa)}


def _less_values(found: Tokens, values: Tokens, mask: Tokens) -> Estimate:
    return Estimate((found - values) * mask, {"returns": found})

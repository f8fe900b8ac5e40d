"""Rewards of texts, as how much the likelihood of each counts: the weights of `reward_weighted`.

Legend: *B any axes, K candidates of a prompt. mask: which candidates there are; weights are 0 elsewhere. The objective
divides by the summed weight, so their scale is free. Nothing here has a gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Rewards = Float[Array, "*B"]
Groups = Float[Array, "*B K"]
Masks = Bool[Array, "*B K"]


def exp_weights(
    rewards: Rewards, *, beta: float, baseline: float | Float[Array, ""] = 0.0, cap: float = 20.0
) -> Rewards:
    """min(exp((R - baseline) / beta), cap).

    beta: temperature in reward units, > 0; beta -> infinity gives plain likelihood.
    cap: largest weight, > 0; bounds the variance of the gradient.
    Raises: ValueError if beta or cap is not positive.
    Source: Peters & Schaal 2007; the cap: Peng et al. 2019 (arXiv:1910.00177).
    """
    if not (beta > 0 and cap > 0):
        raise ValueError(f"beta and cap must be positive, got {beta} and {cap}")
    level = (jax.lax.stop_gradient(rewards) - baseline) / beta
    return jnp.exp(jnp.minimum(level, jnp.log(cap)))


def boltzmann_weights(rewards: Groups, mask: Masks, *, temperature: float) -> Groups:
    """softmax(R / temperature) over the candidates of each prompt; sums to 1, or 0 without any.

    Of candidates that s proposed the likelihood so weighted has its optimum where E[R] - temperature KL(policy || s) is
    greatest.
    temperature: in reward units, > 0.
    Raises: ValueError if it is not.
    Source: Norouzi et al. 2016 (RAML, arXiv:1609.00150) eq. 4, of s in place of all texts.
    """
    return _shares(rewards, mask, temperature)


def raml_weights(
    rewards: Groups, mask: Masks, sampling_log_probs: Groups, *, temperature: float
) -> Groups:
    """softmax(R / temperature - log s) over the candidates of each prompt; sums to 1, or 0 without any.

    An estimate of exp(R / temperature) over all texts, likely or not: of what a policy says itself it favors what is
    improbable, the more the longer; proposals near the texts of a data set are what it was made for.
    sampling_log_probs: log s, the log-probability with which each candidate was proposed.
    temperature: in reward units, > 0.
    Raises: ValueError if it is not.
    Source: Norouzi et al. 2016 (RAML, arXiv:1609.00150) eq. 4, self-normalized.
    """
    return _shares(rewards, mask, temperature, sampling_log_probs)


def _shares(
    rewards: Groups, mask: Masks, temperature: float, log_proposed: Groups | float = 0.0
) -> Groups:
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    level = jax.lax.stop_gradient(rewards / temperature - log_proposed)
    share = jax.nn.softmax(jnp.where(mask, level, 0.0), axis=-1, where=mask)
    return jnp.where(mask, share, 0.0)


def keep_best(rewards: Groups, mask: Masks) -> Groups:
    """1 for the best candidate of each prompt, the first of equal ones; 0 for the others.

    Source: Dong et al. 2023 (RAFT, arXiv:2304.06767).
    """
    best = jnp.argmax(jnp.where(mask, jax.lax.stop_gradient(rewards), -jnp.inf), axis=-1)
    return jax.nn.one_hot(best, rewards.shape[-1]) * mask


def keep_above(rewards: Rewards, mask: Bool[Array, "*B"], *, quantile: float) -> Rewards:
    """1 for texts whose reward is at or above this quantile of all rewards; 0 for the others.

    quantile: in [0, 1); 0 keeps everything.
    Raises: ValueError if it is outside.
    Source: Gulcehre et al. 2023 (ReST, arXiv:2308.08998).
    """
    if not 0 <= quantile < 1:
        raise ValueError(f"quantile must be in [0, 1), got {quantile}")
    rewards = jax.lax.stop_gradient(rewards)
    least = jnp.nanquantile(jnp.where(mask, rewards, jnp.nan), quantile)
    return jnp.asarray(mask & (rewards >= least), jnp.float32)

"""The `evolution` line of a config, checked beside the lines that it has no use for."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from rmjax import lookup
from rmjax.assembly import training
from rmjax.errors import UserError
from rmjax.train import evolution


def plan(config: Any, trained: training.Training) -> Callable[..., Any] | None:
    """The strategy that a config names, if it names one.

    Raises: UserError naming the key that does not go with it.
    """
    if lookup.off(config.evolution, key="evolution"):
        return None
    strategy = lookup.bind(config.evolution, evolution.STRATEGIES, key="evolution")
    # What only a loss, its gradient, or a group of answers by one policy has a use for.
    fit = {
        "loss": "none()",
        "critic": "none()",
        "baseline": "none()",
        "weights": "none()",
        "dropout": 0.0,
        "rollout_epochs": 1,
        "minibatches": 1,
        "microbatches": 1,
    }
    for key, value in fit.items():
        if training.differs(config, key, value):
            raise UserError(
                f"config key '{key}': evolution ranks the members of a population by their reward, and has no use for "
                f"{config[key]!r}; set {key}={value!r}"
            )
    if trained.adapter is None or trained.adapter.dropout:
        raise UserError(
            "config key 'adapter': evolution perturbs an adapter, which drops nothing; set it to such as "
            f"'lora(rank=4)', not {config.adapter!r}"
        )
    try:
        strategy(config.samples, {"": jnp.zeros(1)}, optax.identity())
    except ValueError as error:
        raise UserError(f"config keys 'evolution', 'samples': {error}") from error
    return strategy

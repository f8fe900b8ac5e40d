"""The lines of a config that every training run has: optimizer, schedule, layout, adapter, frozen parts."""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from rmjax import lookup
from rmjax.data.records import Data, fingerprint
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models import lora
from rmjax.models.layers import Adapter
from rmjax.train import optimizer, parallel, state
from rmjax.train.state import Params, State

DTYPES = ("float32", "bfloat16")


class Training(NamedTuple):
    """How a model is trained, bound and checked."""

    adapter: Adapter | None
    rule: Any
    schedule: Callable
    rates: dict[str, float]
    layout: Callable[..., parallel.Layout]


def plan(config: Any, at_least_one: tuple[str, ...]) -> Training:
    """Binds the lines of training.

    at_least_one: keys that must be 1 or more.
    Raises: UserError naming the key, or where the config is of another command.
    """
    c = config
    if absent := [key for key in at_least_one if key not in c]:
        raise UserError(
            f"--config: has no key {', '.join(absent)}, so it is of another command; configs/reward.py is of "
            "experiments.train_reward, cross_validate and bench reward, configs/policy.py of optimize_policy and bench "
            "policy"
        )
    for key in at_least_one:
        if c[key] < 1:
            raise UserError(f"config key '{key}': must be at least 1, got {c[key]}")
    if c.seed < 0:
        raise UserError(f"config key 'seed': must not be negative, got {c.seed}")
    for key in ("epochs", "validations"):
        if not 0 < c[key] < float("inf"):
            raise UserError(f"config key '{key}': must be positive and finite, got {c[key]}")
    if c.dtype not in ("auto", *DTYPES):
        raise UserError(f"config key 'dtype': {c.dtype!r} is none of auto, {', '.join(DTYPES)}")
    if not 0 <= c.dropout < 1:
        raise UserError(f"config key 'dropout': must be in [0, 1), got {c.dropout}")
    schedule = lookup.bind(c.schedule, optimizer.SCHEDULES, key="schedule")
    rates = _rates(c.rates)
    try:
        rule = lookup.bind(c.optimizer, optimizer.RULES, key="optimizer")()
        optimizer.chain(
            rule, schedule(100), clip_norm=c.clip_norm, weight_decay=c.weight_decay, rates=rates
        )
        re.compile(c.frozen)
    except (ValueError, re.error) as error:
        raise UserError(f"config keys 'optimizer' to 'frozen': {error}") from error
    return Training(
        lookup.bind(c.adapter, backbones.ADAPTERS, key="adapter")(),
        rule,
        schedule,
        rates,
        lookup.bind(c.parallel, parallel.LAYOUTS, key="parallel"),
    )


def differs(config: Any, key: str, value: Any) -> bool:
    """Whether a config says something else than this value; lines are compared by what they say."""
    if isinstance(value, str):
        return not lookup.same(config[key], value, key=key)
    return config[key] != value


def update(config: Any, chosen: Training, steps: int) -> optax.GradientTransformation:
    """The optimizer of a run of so many updates."""
    return optimizer.chain(
        chosen.rule,
        chosen.schedule(steps),
        clip_norm=config.clip_norm,
        weight_decay=config.weight_decay,
        rates=chosen.rates,
    )


def held(frozen: str, adapter: Adapter | None, params: Params) -> str:
    """The regular expression of parameters that stay as they are; with an adapter, of all that it stands beside."""
    if adapter is None:
        return frozen
    if not any(path.startswith(lora.ROOT) for path in params):
        raise UserError(
            f"config key 'adapter': targets={adapter.targets!r} finds no projection; there are "
            f"{sorted(p.removesuffix('/kernel') for p in params if p.endswith('/kernel'))}"
        )
    return f"{lora.BESIDE}|{frozen}" if frozen else lora.BESIDE


def states(
    init: list[Params], kept: str, rule: optax.GradientTransformation, keys: list[jax.Array]
) -> tuple[list[State], Params]:
    """The first state of every seed, and what all of them share and none trains."""
    try:
        parts = [state.split(params, kept) for params in init]
        states = [
            state.create(trained, rule.init(trained), stream(key, "dropout"))
            for (trained, _), key in zip(parts, keys, strict=True)
        ]
    except ValueError as error:
        raise UserError(f"config keys 'frozen', 'rates': {error}") from error
    shared = parts[0][1]
    if any(np.any(shared[k] != own[k]) for _, own in parts[1:] for k in own):
        raise UserError("config key 'frozen': these parameters start at random, and all seeds would share the "
                        "first one's; freeze pretrained ones, or set seeds=1")  # fmt: skip
    return states, shared


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of a named PRNG stream: init, dropout or noise (data order comes from the seed, in numpy)."""
    return jax.random.fold_in(key, ("init", "dropout", "noise").index(name))


def hashes(loaded: Data) -> dict[str, str]:
    """The sha256 of each split's records."""
    return {name: fingerprint(getattr(loaded, name)) for name in ("train", "validation", "test")}


def _rates(text: str) -> dict[str, float]:
    """{"regex": factor} from JSON, such as {"transformer/": 0.3}."""
    try:
        found = json.loads(text or "{}")
        return {re.compile(pattern).pattern: float(rate) for pattern, rate in found.items()}
    except (ValueError, AttributeError, TypeError, re.error) as error:
        raise UserError(f"config key 'rates': cannot read {text!r}; write "
                        '{"regular expression of paths": factor}') from error  # fmt: skip

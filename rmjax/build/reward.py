"""A reward-model config to everything a run needs, checked in the order of what is cheap to check."""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rmjax import lookup
from rmjax.build import data, model, objective
from rmjax.build.data import DATA, Data
from rmjax.data import examples, pipeline
from rmjax.data.encode import Known, Reader, encode
from rmjax.data.records import fingerprint
from rmjax.errors import UserError
from rmjax.models import attention, lora, shardings
from rmjax.models.heads import RewardModel
from rmjax.models.layers import Adapter
from rmjax.train import optimizer, parallel, state, step
from rmjax.train.state import Params, State

DTYPES = ("float32", "bfloat16")


class Normalize(NamedTuple):
    """Which texts' raw scores get mean 0 (and deviation 1): "train", "validation", or a file of records."""

    reference: str
    scale: bool


def keep() -> None:
    """Scores stay as the model gives them."""


def shift(*, reference: str = "validation") -> Normalize:
    """The reference texts score 0 on average."""
    return Normalize(reference, scale=False)


def standardize(*, reference: str = "validation") -> Normalize:
    """The reference texts' scores have mean 0 and deviation 1."""
    return Normalize(reference, scale=True)


NORMALIZE = {f.__name__: f for f in (keep, shift, standardize)}


class Plan(NamedTuple):
    """What the config's lines name, bound and checked before anything is loaded."""

    terms: list[lookup.Term]
    pair_arrays: tuple[str, ...]
    records: Callable[[], Data]
    backbone: Callable[[], model.Backbone]
    head: Callable[..., nn.Module]
    adapter: Adapter | None
    rule: Any
    schedule: Callable
    rates: dict[str, float]
    layout: Callable[..., parallel.Layout]
    normalize: Normalize | None


class Parts(NamedTuple):
    """A run, ready to start."""

    data: Data
    backbone: model.Backbone
    module: RewardModel
    batches: list[pipeline.Batches]  # one a seed
    layout: parallel.Layout
    step: Callable
    state: State
    frozen: Params
    parameters: int
    notes: list[str]


def plan(config: Any) -> Plan:
    """Binds every spec string.

    Raises: UserError naming the key.
    """
    c = config
    for key in ("seeds", "batch_size", "group_size", "microbatches", "log_every", "save_every"):
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
    pair_arrays = tuple(part.strip() for part in c.pair_arrays.split(",") if part.strip())
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
    return Plan(
        objective.terms(c.loss, pair_arrays),
        pair_arrays,
        _records(c.data, c.fold),
        lookup.bind(c.model, model.MODELS, key="model"),
        lookup.bind(c.head, model.HEADS, key="head"),
        lookup.bind(c.adapter, model.ADAPTERS, key="adapter")(),
        rule,
        schedule,
        rates,
        lookup.bind(c.parallel, parallel.LAYOUTS, key="parallel"),
        lookup.bind(c.normalize, NORMALIZE, key="normalize")(),
    )


def _records(line: str, fold: str) -> Callable[[], Data]:
    records = lookup.bind(line, DATA, key="data")
    return (lambda: data.fold(records(), fold)) if fold else records


def assemble(config: Any, chosen: Plan, loaded: Data, dtype: str) -> Parts:
    """Builds batches, model, optimizer, step and the placed first state.

    loaded: what chosen.records() gave. dtype: of products.
    Raises: UserError where lines of the config do not fit each other or the data.
    """
    c = config
    try:
        backbone = chosen.backbone()
    except ValueError as error:
        raise UserError(f"config key 'model': {error}") from error
    layout = chosen.layout(shardings.spec, c.seeds)
    batches, notes = _batches(c, chosen, loaded, backbone, layout.ways)
    needs = objective.needs(chosen.terms)
    labels = model.Labels(loaded.scale, "tie_width" in needs, loaded.attributes)
    module = model.reward_model(
        backbone.config,
        chosen.head(labels),
        backbone.pooling,
        dtype=dtype,
        dropout=c.dropout,
        remat=c.remat,
        adapter=chosen.adapter,
    )
    keys = [jax.random.key(c.seed + i) for i in range(c.seeds)]
    init = [model.initialize(module, backbone.weights, stream(key, "init")) for key in keys]
    goal = objective.create(chosen.terms, module.apply, _offered(module, init[0], batches[0][0]))
    update = optimizer.chain(
        chosen.rule,
        chosen.schedule(len(batches[0])),
        clip_norm=c.clip_norm,
        weight_decay=c.weight_decay,
        rates=chosen.rates,
    )
    states, frozen = _states(init, _held(c.frozen, chosen.adapter, init[0]), update, keys)
    made = step.make_step(goal, update, axis=layout.axis, microbatches=c.microbatches)
    first = states[0]
    if c.seeds > 1:
        # Wide models run faster unrolled on CPU, narrow ones vmapped.
        unroll = jax.default_backend() == "cpu" and backbone.config.width >= 256
        made = parallel.stack_seeds(made, unroll=unroll)
        first = jax.tree.map(lambda *x: jnp.stack(x), *states)
    return Parts(
        loaded,
        backbone,
        module,
        batches,
        layout,
        layout.compile_step(made),
        layout.put(first),
        layout.put(frozen, stacked=False),
        sum(p.size for p in init[0].values()),
        [*loaded.notes, *notes],
    )


def _batches(
    config: Any, chosen: Plan, loaded: Data, backbone: model.Backbone, ways: int
) -> tuple[list[pipeline.Batches], list[str]]:
    """The training batches of every seed, and notes on what was cut or left out."""
    c = config
    if loaded.kind == "processes" and backbone.pooling != "last":
        raise UserError(
            "config key 'model': steps are scored where they end; set pooling='last' in it"
        )
    reads = reader(backbone, model.longest(backbone.config, c.max_length))
    known = Known(loaded.scale, loaded.attributes)
    texts, notes = encode(loaded.train, reads, known, train=True)
    examples.check_offer(texts, chosen.pair_arrays)
    draw = lambda seed: pipeline.batches(
        texts,
        seed=seed,
        epochs=c.epochs,
        batch_size=c.batch_size,
        group_size=c.group_size,
        offer=chosen.pair_arrays,
        lists="group_scores" in objective.needs(chosen.terms),
        rows_multiple=ways * c.microbatches,
        pad_id=backbone.tokenizer.pad_id,
        tiling=pipeline.Tiling(attention.TILE, causal=backbone.config.kind == "decoder"),
    )
    return pipeline.stack([draw(c.seed + i) for i in range(c.seeds)]), notes


def _held(frozen: str, adapter: Adapter | None, params: Params) -> str:
    """The regular expression of parameters that stay as they are; with an adapter, of all that it stands beside."""
    if adapter is None:
        return frozen
    if not any(path.startswith(lora.ROOT) for path in params):
        raise UserError(
            f"config key 'adapter': targets={adapter.targets!r} finds no projection; there are "
            f"{sorted(p.removesuffix('/kernel') for p in params if p.endswith('/kernel'))}"
        )
    return f"{lora.BESIDE}|{frozen}" if frozen else lora.BESIDE


def _states(
    init: list[Params], held: str, update: optax.GradientTransformation, keys: list[jax.Array]
) -> tuple[list[State], Params]:
    """The first state of every seed, and what all of them share and none trains."""
    try:
        parts = [state.split(params, held) for params in init]
        states = [
            state.create(trained, update.init(trained), stream(key, "dropout"))
            for (trained, _), key in zip(parts, keys, strict=True)
        ]
    except ValueError as error:
        raise UserError(f"config keys 'frozen', 'rates': {error}") from error
    shared = parts[0][1]
    if any(np.any(shared[k] != own[k]) for _, own in parts[1:] for k in own):
        raise UserError("config key 'frozen': these parameters start at random, and all seeds would share the "
                        "first one's; freeze pretrained ones, or set seeds=1")  # fmt: skip
    return states, shared


def reader(backbone: model.Backbone, max_length: int) -> Reader:
    """How this model reads records."""
    share = model.shares(backbone.config, backbone.pooling)
    return Reader(backbone.tokenizer, backbone.template, max_length, share)


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of a named PRNG stream: init or dropout (data order comes from the seed, in numpy)."""
    return jax.random.fold_in(key, ("init", "dropout").index(name))


def hashes(loaded: Data) -> dict[str, str]:
    """The sha256 of each split's records."""
    return {name: fingerprint(getattr(loaded, name)) for name in ("train", "validation", "test")}


def _offered(module: RewardModel, params: Params, batch: dict[str, np.ndarray]) -> set[str]:
    inputs = [batch[name] for name in ("tokens", "positions", "segments", "score_at")]
    arrays = jax.eval_shape(module.apply, state.collections(params), *inputs)
    gathered = {"group_scores"} if "group_items" in batch else set()
    return {*arrays, *batch, *gathered}


def _rates(text: str) -> dict[str, float]:
    """{"regex": factor} from JSON, such as {"transformer/": 0.3}."""
    try:
        found = json.loads(text or "{}")
        return {re.compile(pattern).pattern: float(rate) for pattern, rate in found.items()}
    except (ValueError, AttributeError, TypeError, re.error) as error:
        raise UserError(f"config key 'rates': cannot read {text!r}; write "
                        '{"regular expression of paths": factor}') from error  # fmt: skip

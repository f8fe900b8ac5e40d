"""A reward-model config to everything a run needs, checked in the order of what is cheap to check."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rmjax import lookup
from rmjax.assembly import data, objective, training
from rmjax.assembly.data import DATA
from rmjax.data import examples, pipeline
from rmjax.data.encode import Known, encode
from rmjax.data.records import Data
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.inference.normalization import NORMALIZE, Normalize
from rmjax.models import attention, heads, shardings
from rmjax.models.heads import RewardModel
from rmjax.models.outputs import in_order
from rmjax.train import parallel, state, step
from rmjax.train.state import Params, State


class Plan(NamedTuple):
    """What the config's lines name, bound and checked before anything is loaded."""

    terms: list[lookup.Term]
    pair_arrays: tuple[str, ...]
    records: Callable[[], Data]
    backbone: Callable[[], backbones.Backbone]
    head: Callable[..., nn.Module]
    training: training.Training
    normalize: Normalize | None


class Parts(NamedTuple):
    """A run, ready to start."""

    data: Data
    backbone: backbones.Backbone
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
    keys = ("seeds", "batch_size", "group_size", "microbatches", "log_every", "save_every")
    trained = training.plan(c, keys)
    pair_arrays = tuple(part.strip() for part in c.pair_arrays.split(",") if part.strip())
    return Plan(
        objective.terms(c.loss, pair_arrays),
        pair_arrays,
        _records(c.data, c.fold),
        lookup.bind(c.model, backbones.MODELS, key="model"),
        lookup.bind(c.head, heads.HEADS, key="head"),
        trained,
        lookup.bind(c.normalize, NORMALIZE, key="normalize")(),
    )


def _records(line: str, fold: str) -> Callable[[], Data]:
    records = lookup.bind(line, DATA, key="data")
    return (lambda: data.fold(records(), fold)) if fold else records


def assemble(config: Any, chosen: Plan, loaded: Data, dtype: str, date: str = "") -> Parts:
    """Builds batches, model, optimizer, step and the placed first state.

    loaded: what chosen.records() gave. dtype: of products. date: that a chat template with a date renders; "": today.
    Raises: UserError where lines of the config do not fit each other or the data.
    """
    c, adapter = config, chosen.training.adapter
    if loaded.kind == "plain texts":
        raise UserError("config key 'data': these texts have no ratings to learn a reward from; experiments."
                        "optimize_policy trains language models on them, and file(rating='reward') makes the rewards "
                        "of logs ratings")  # fmt: skip
    try:
        backbone = chosen.backbone().dated(date)
    except ValueError as error:
        raise UserError(f"config key 'model': {error}") from error
    backbone = _in_order(backbone, loaded)
    layout = chosen.training.layout(shardings.spec, c.seeds)
    batches, notes = _batches(c, chosen, loaded, backbone, layout.ways)
    needs = objective.needs(chosen.terms)
    labels = heads.Labels(loaded.scale, "tie_width" in needs, loaded.attributes)
    module = backbones.reward_model(
        backbone.config,
        chosen.head(labels),
        backbone.pooling,
        dtype=dtype,
        dropout=c.dropout,
        remat=c.remat,
        adapter=adapter,
    )
    keys = [jax.random.key(c.seed + i) for i in range(c.seeds)]
    init = [
        backbones.initialize(module, backbone.weights, training.stream(key, "init")) for key in keys
    ]
    goal = objective.create(chosen.terms, module.apply, _offered(module, init[0], batches[0][0]))
    update = training.update(c, chosen.training, len(batches[0]))
    held = training.held(c.frozen, adapter, init[0])
    states, frozen = training.states(init, held, update, keys)
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


def _in_order(backbone: backbones.Backbone, loaded: Data) -> backbones.Backbone:
    """A stored classifier with its outputs in the order of the data's classes or attributes.

    Raises: UserError where they are others.
    """
    outputs, kernel = backbone.outputs, backbone.weights.get("head/logits/kernel")
    name, wanted = "logits", loaded.classes
    if outputs is not None and outputs.kind == "attributes":
        name, wanted = "attributes", loaded.attributes
        kernel = backbone.weights.get("head/attributes/kernel")
    elif loaded.scale and not wanted:
        wanted = tuple(map(str, range(loaded.scale[0], loaded.scale[1] + 1)))
    if outputs is None or outputs.unnamed or kernel is None or not wanted:
        return backbone
    order = in_order(outputs, np.arange(len(outputs.names)), wanted)
    if order is None:
        raise UserError(
            f"config key 'model': the stored head's outputs are {', '.join(outputs.names)}, and the data has "
            f'{", ".join(wanted)}; give such data, or train a new head: model="pretrained(..., new_head=True)"'
        )
    head = {
        f"head/{name}/{part}": backbone.weights[f"head/{name}/{part}"][..., order]
        for part in ("kernel", "bias")
    }
    return backbone._replace(weights=backbone.weights | head)


def _batches(
    config: Any, chosen: Plan, loaded: Data, backbone: backbones.Backbone, ways: int
) -> tuple[list[pipeline.Batches], list[str]]:
    """The training batches of every seed, and notes on what was cut or left out."""
    c = config
    if loaded.kind == "processes" and backbone.pooling != "last":
        raise UserError(
            "config key 'model': steps are scored where they end; set pooling='last' in it"
        )
    reads = backbones.reader(
        backbone, backbones.longest(backbone.config, c.max_length), c.special_tokens
    )
    known = Known(loaded.scale, loaded.attributes)
    made = encode(loaded.train, reads, known, train=True)
    texts, notes = made.examples, made.notes
    if backbone.pooling == "last" and loaded.kind != "processes":
        notes = [reads.rule(), *notes]
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


def _offered(module: RewardModel, params: Params, batch: dict[str, np.ndarray]) -> set[str]:
    inputs = [batch[name] for name in ("tokens", "positions", "segments", "score_at")]
    arrays = jax.eval_shape(module.apply, state.collections(params), *inputs)
    gathered = {"group_scores"} if "group_items" in batch else set()
    return {*arrays, *batch, *gathered}

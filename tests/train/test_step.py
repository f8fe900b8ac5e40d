"""One update is the same however the batch is split: devices, meshes, micro-batches, seeds, packing.

Every run here is of one shape, with dropout, unequal weights and frozen position embeddings.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmjax import lookup
from rmjax.assembly.objective import PAIR_METRICS
from rmjax.data import pipeline
from rmjax.data.examples import Examples
from rmjax.errors import UserError
from rmjax.losses import LOSSES
from rmjax.models import heads, presets, shardings
from rmjax.models.transformer import Transformer
from rmjax.train import forward, objective, optimizer, parallel, state, step

CONFIG = presets.encoder(vocab_size=64, width=16, layers=1, max_positions=32)
LOSS = "mse() + 0.5 * bradley_terry(label_smoothing=0.1)"
FROZEN = "transformer/positions"
LAYOUTS = {
    "one_device()": parallel.one_device,
    "pmap()": parallel.pmap,
    "mesh(data=8)": functools.partial(parallel.mesh, data=8),
    "mesh(fsdp=8)": functools.partial(parallel.mesh, fsdp=8),
    "mesh(data=2, fsdp=2, tensor=2)": functools.partial(parallel.mesh, data=2, fsdp=2, tensor=2),
}
THREE = ("one_device()", "pmap()", "mesh(data=2, fsdp=2, tensor=2)")
STEPS = 3


def examples(count=180, seed=0):
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(1, 64, rng.integers(3, 12)).astype(np.int32) for _ in range(count)]
    rating = np.array([t.mean() / 16 - 2 for t in tokens], np.float32)
    weight = rng.uniform(0.2, 2, count).astype(np.float32)
    return Examples(tokens, [], weight, np.zeros(count, np.int64), {"rating": rating})


# A row holds one group or two short ones, so that most devices have texts: three batches of 20 groups.
TIGHT = pipeline.Shape(rows=16, row_length=40, places=6, pairs=6, groups=6, group_size=4, tiles=0)
LOOSE = pipeline.Shape(
    rows=16, row_length=96, places=20, pairs=30, groups=20, group_size=4, tiles=0
)


def batches(seed, shape=TIGHT):
    drawn = pipeline.batches(examples(), seed=seed, epochs=1.0, batch_size=20, group_size=3)
    return dataclasses.replace(drawn, shape=shape)


SOURCES = [batches(seed) for seed in (0, 1)]


@functools.cache
def model(dropout):
    return heads.RewardModel(Transformer(CONFIG, dropout=dropout), heads.Scalar(), "mean")


@functools.cache
def parts(dropout):
    goal = objective.create(
        lookup.terms(LOSS, LOSSES, key="loss"), forward.scores(model(dropout).apply), PAIR_METRICS
    )
    update = optimizer.chain(
        optimizer.adamw(),
        optax.constant_schedule(1e-2),
        clip_norm=1.0,
        weight_decay=0.1,
        rates={"head": 0.5},
    )
    return goal, update


@jax.jit
def initialize(seed):
    one = jnp.zeros((1, 1), jnp.int32)
    params = model(0.0).init(jax.random.key(seed), one, one, one + 1, one)["params"]
    trained, frozen = state.split(state.flatten(params), FROZEN)
    opt_state = parts(0.0)[1].init(trained)
    return state.create(trained, opt_state, jax.random.key(seed + 7)), frozen


@functools.cache
def start(seed):
    """The first state, on the host: a step donates what it is given."""
    first, _ = jax.tree.map(np.asarray, initialize(seed))
    return first, jax.tree.map(np.asarray, initialize(0)[1])


@functools.cache
def compiled(name, dropout=0.1, microbatches=1, seeds=1, unroll=False):
    layout = LAYOUTS[name](shardings.spec, seeds)
    run = step.make_step(*parts(dropout), axis=layout.axis, microbatches=microbatches)
    return layout, layout.compile_step(
        parallel.stack_seeds(run, unroll=unroll) if seeds > 1 else run
    )


def train(name, source=SOURCES[0], *, seed=0, **options):
    layout, run = compiled(name, **options)
    first, frozen = start(seed)
    stacked = options.get("seeds", 1) > 1
    if stacked:
        first = jax.tree.map(lambda *x: np.stack(x), *[start(s)[0] for s in (0, 1)])
    now, held = layout.put(first), layout.put(frozen, stacked=False)
    for k in range(STEPS):
        batch = source[k]
        if stacked:
            batch = {n: np.stack([s[k][n] for s in SOURCES]) for n in batch}
        now, means = run(now, held, layout.put_batch(batch))
    means = {n: layout.value(m.total) / layout.value(m.weight) for n, m in means.items()}
    return jax.tree.map(np.asarray, layout.get(now).params), means


@functools.cache
def single(seed, dropout=0.1):
    return train("one_device()", SOURCES[seed], seed=seed, dropout=dropout)


def assert_close(got, want, rtol=2e-4):
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_allclose(got[path], want[path], rtol=rtol, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "one_device()"])
def test_layouts_agree_dropout_and_unequal_weights_included(name):
    for weight in (SOURCES[0][0][f"{of}_weight"] for of in ("text", "pair")):
        per_device = weight.reshape(8, -1).sum(axis=1)
        assert np.sum(per_device > 0) >= 6
        assert np.ptp(per_device) > 1  # a mean of means would differ
    params, means = train(name)
    assert_close(params, single(0)[0])
    assert_close(means, single(0)[1])


@pytest.mark.parametrize("name", THREE)
def test_microbatches_agree(name):
    params, means = train(name, microbatches=2)
    assert_close(params, single(0)[0])
    assert_close(means, single(0)[1])


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("name", THREE)
def test_stacked_seeds_are_the_single_runs(name, unroll):
    params, means = train(name, seeds=2, unroll=unroll)
    for i in (0, 1):
        assert_close({k: v[i] for k, v in params.items()}, single(i)[0])
        assert_close({k: v[i] for k, v in means.items()}, single(i)[1])


def test_dropout_comes_from_the_row_and_the_step_alone():
    other, same = single(0, dropout=0.0)[0], single(0)[0]
    moved = max(np.max(np.abs(other[k] - same[k])) for k in other)
    assert moved > 1e-3  # dropout is on in the reference, so agreement above means something


def test_packing_changes_no_update():
    wide = train("one_device()", batches(0, LOOSE), dropout=0.0)
    assert_close(wide[0], single(0, dropout=0.0)[0])


def test_slots_of_weight_zero_change_nothing_whatever_they_hold():
    run = compiled("one_device()", dropout=0.0)[1]
    first, frozen = start(0)
    batch = SOURCES[0][0]
    empty = batch["text_weight"] == 0
    assert empty.all(axis=1).any() and (batch["segments"] == 0).any()
    spoiled = batch | {
        "tokens": np.where(batch["segments"] == 0, 63, batch["tokens"]),
        "rating": np.where(empty, np.nan, batch["rating"]).astype(np.float32),
    }
    got, want = (run(first, frozen, b)[0].params for b in (spoiled, batch))
    assert_close(got, want, rtol=1e-6)


def test_a_bad_step_is_remembered_and_moves_no_parameter_ever_after():
    run = compiled("one_device()", dropout=0.0)[1]
    first, frozen = start(0)
    good, bad = SOURCES[0][0], SOURCES[0][1]
    bad["rating"][tuple(np.argwhere(bad["text_weight"] > 0)[0])] = np.nan
    seen, now = [], first
    for batch in (good, bad, good):
        now = run(now, frozen, batch)[0]
        seen.append(jax.tree.map(np.array, now))
    assert [int(s.bad_step) for s in seen] == [-1, 1, 1]
    assert [int(s.step) for s in seen] == [1, 2, 3]
    kept = [jax.tree.leaves(s.params) for s in seen]
    for now in kept[1:]:
        jax.tree.map(np.testing.assert_array_equal, now, kept[0])
    assert any(np.any(seen[0].params[k] != first.params[k]) for k in first.params)


def test_an_update_is_written_in_place():
    square = lambda params, frozen, batch, rng: ({"square": jnp.sum(params["w"] ** 2)}, {})
    goal = objective.Objective({"square": 1.0}, lambda batch: {"square": jnp.ones(())}, square)
    rule, params = optimizer.adamw(), {"w": jnp.ones((512, 512))}
    run = step.make_step(goal, rule)
    first = state.create(params, rule.init(params), jax.random.key(0))
    made = jax.jit(run, donate_argnums=0).lower(first, {}, {}).compile().memory_analysis()
    # At most the gradient; copies of both moments would be two more.
    assert made.temp_size_in_bytes < 1.5 * params["w"].nbytes < made.alias_size_in_bytes


def test_frozen_parameters_have_no_optimizer_state_and_stay_out():
    first, frozen = start(0)
    assert set(frozen) == {FROZEN} and FROZEN not in single(0)[0]
    assert frozen[FROZEN].shape not in {x.shape for x in jax.tree.leaves(first.opt_state)}


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="needs 6 devices, and there are 8"):
        parallel.mesh(shardings.spec, 1, data=3, tensor=2)
    layout = parallel.mesh(shardings.spec, 1, tensor=8)
    odd = {"transformer/blocks/up/kernel": np.zeros((2, 32, 100), np.float32)}
    with pytest.raises(UserError, match="up/kernel of shape"):
        layout.put(odd)


def test_no_recompile_in_steady_state():
    layout, run = compiled("one_device()", dropout=0.0)
    first, frozen = start(0)
    now, held = layout.put(first), layout.put(frozen, stacked=False)
    before = None
    with jax.transfer_guard_device_to_host("disallow"):
        for k in range(len(SOURCES[0])):
            now, _ = run(now, held, layout.put_batch(SOURCES[0][k]))
            before = before or run._cache_size()
    assert run._cache_size() == before

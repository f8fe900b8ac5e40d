"""One update is the same however the batch is split: devices, meshes, micro-batches, seeds, packing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmjax import lookup
from rmjax.build.objective import PAIR_METRICS
from rmjax.data import pipeline
from rmjax.data.examples import Examples
from rmjax.errors import UserError
from rmjax.losses import LOSSES
from rmjax.models import heads, presets, shardings
from rmjax.models.transformer import Transformer
from rmjax.train import forward, objective, optimizer, parallel, state, step

CONFIG = presets.encoder(vocab_size=64, width=32, layers=2, max_positions=32)
LOSS = "mse() + 0.5 * bradley_terry(label_smoothing=0.1)"


def examples(count=90, seed=0):
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(1, 64, rng.integers(3, 12)).astype(np.int32) for _ in range(count)]
    rating = np.array([t.mean() / 16 - 2 for t in tokens], np.float32)
    weight = rng.uniform(0.2, 2, count).astype(np.float32)
    return Examples(tokens, weight, np.zeros(count, np.int64), {"rating": rating})


def batches(seed=0, multiple=8, **options):
    options = {
        "epochs": 1.0,
        "batch_size": 10,
        "group_size": 3,
        "rows_multiple": multiple,
    } | options
    return pipeline.batches(examples(), seed=seed, **options)


def setup(dropout=0.0, seed=0, unroll=1, frozen=""):
    module = heads.RewardModel(
        Transformer(CONFIG, dropout=dropout, unroll=unroll), heads.Scalar(), "mean"
    )
    one = jnp.zeros((1, 1), jnp.int32)
    params = state.flatten(module.init(jax.random.key(seed), one, one, one + 1, one)["params"])
    trained, held = state.split(params, frozen)
    goal = objective.create(
        lookup.terms(LOSS, LOSSES, key="loss"), forward.scores(module.apply), PAIR_METRICS
    )
    update = optimizer.chain(
        optimizer.adamw(),
        optax.constant_schedule(1e-2),
        clip_norm=1.0,
        weight_decay=0.1,
        rates={"head": 0.5},
    )
    return goal, update, state.create(trained, update.init(trained), jax.random.key(seed + 7)), held


def train(
    layout, source, *, steps=3, dropout=0.1, microbatches=1, seeds=(0,), unroll=False, frozen=""
):
    made = [setup(dropout, seed, frozen=frozen) for seed in seeds]
    goal, update, first, held = made[0]
    run = step.make_step(goal, update, axis=layout.axis, microbatches=microbatches)
    stacked = len(seeds) > 1
    if stacked:
        run = parallel.stack_seeds(run, unroll=unroll)
        first = jax.tree.map(lambda *x: jnp.stack(x), *[m[2] for m in made])
    run = layout.compile_step(run)
    now, held = layout.put(first), layout.put(held, stacked=False)
    for k in range(steps):
        batch = [b[k] for b in source]
        batch = {n: np.stack([b[n] for b in batch]) for n in batch[0]} if stacked else batch[0]
        now, means = run(now, held, layout.put_batch(batch))
    means = {n: layout.value(m.total) / layout.value(m.weight) for n, m in means.items()}
    return jax.tree.map(np.asarray, layout.get(now).params), means


def assert_close(got, want, rtol=2e-4):
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_allclose(got[path], want[path], rtol=rtol, atol=2e-6, err_msg=path)


LAYOUTS = {
    "pmap()": parallel.pmap,
    "mesh(data=8)": lambda *a: parallel.mesh(*a, data=8),
    "mesh(fsdp=8)": lambda *a: parallel.mesh(*a, fsdp=8),
    "mesh(data=2, fsdp=2, tensor=2)": lambda *a: parallel.mesh(*a, data=2, fsdp=2, tensor=2),
}


@pytest.fixture(scope="module")
def reference():
    return train(parallel.one_device(shardings.spec, 1), [batches()])


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_agree_dropout_and_unequal_weights_included(name, reference):
    source = batches()
    per_device = source[0]["pair_weight"].reshape(8, -1).sum(axis=1)
    assert per_device.max() > per_device.min()  # so a mean of means would differ
    params, means = train(LAYOUTS[name](shardings.spec, 1), [source])
    assert_close(params, reference[0])
    assert_close(means, reference[1])


@pytest.mark.parametrize("name", ["one_device()", *LAYOUTS])
def test_microbatches_agree(name, reference):
    layout = {"one_device()": parallel.one_device, **LAYOUTS}[name](shardings.spec, 1)
    source = batches(multiple=16)
    want = (
        reference
        if source.shape == batches().shape
        else train(parallel.one_device(shardings.spec, 1), [source])
    )
    params, means = train(layout, [source], microbatches=2)
    assert_close(params, want[0])
    assert_close(means, want[1])


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("name", ["one_device()", "pmap()", "mesh(data=2, fsdp=2, tensor=2)"])
def test_stacked_seeds_are_the_single_runs(name, unroll):
    layouts = {"one_device()": parallel.one_device, **LAYOUTS}
    sources = pipeline.stack([batches(seed=s) for s in (0, 1)])
    params, _ = train(layouts[name](shardings.spec, 2), sources, seeds=(0, 1), unroll=unroll)
    for i in (0, 1):
        single, _ = train(parallel.one_device(shardings.spec, 1), [sources[i]], seeds=(i,))
        assert_close({k: v[i] for k, v in params.items()}, single)


def test_dropout_comes_from_the_row_and_the_step_alone(reference):
    other, _ = train(parallel.one_device(shardings.spec, 1), [batches()], dropout=0.0)
    moved = max(np.max(np.abs(other[k] - reference[0][k])) for k in other)
    assert moved > 1e-3  # dropout is on in the reference, so agreement above means something


def test_packing_changes_no_update():
    source = batches()
    loose = pipeline.Shape(rows=16, row_length=96, texts=20, pairs=30)
    wide = pipeline.dataclasses.replace(source, shape=loose)
    layout = parallel.one_device(shardings.spec, 1)
    assert source.shape != loose
    assert_close(train(layout, [wide], dropout=0.0)[0], train(layout, [source], dropout=0.0)[0])


def test_rows_of_weight_zero_change_nothing_whatever_they_hold():
    goal, update, first, held = setup()
    batch = batches()[0]
    run = jax.jit(step.make_step(goal, update))
    spoiled = dict(batch)
    empty = batch["text_weight"].sum(axis=1) == 0
    spoiled["tokens"] = np.where(batch["segments"] == 0, 63, batch["tokens"])
    spoiled["rating"] = np.where(batch["text_weight"] == 0, 1e6, batch["rating"]).astype(np.float32)
    assert empty.any() or (batch["text_weight"] == 0).any()
    a, b = run(first, held, batch)[0].params, run(first, held, spoiled)[0].params
    assert_close(jax.tree.map(np.asarray, a), jax.tree.map(np.asarray, b), rtol=1e-6)


def test_a_bad_step_is_remembered_and_changes_nothing_ever_after():
    goal, update, first, held = setup()
    run = jax.jit(step.make_step(goal, update))
    good, bad = batches()[0], dict(batches()[1])
    bad["rating"] = np.where(
        np.arange(bad["rating"].size).reshape(bad["rating"].shape) == 0, np.nan, bad["rating"]
    )
    one = run(first, held, good)[0]
    two = run(one, held, bad)[0]
    three = run(two, held, good)[0]
    assert (int(one.bad_step), int(two.bad_step), int(three.bad_step)) == (-1, 1, 1)
    assert int(three.step) == 3
    for path, value in one.params.items():
        np.testing.assert_array_equal(three.params[path], value)


def test_frozen_parameters_have_no_optimizer_state_and_stay(reference):
    _, _, first, held = setup(frozen="transformer/tokens")
    assert set(held) == {"transformer/tokens"}
    shapes = {x.shape for x in jax.tree.leaves(first.opt_state)}
    assert held["transformer/tokens"].shape not in shapes
    params, _ = train(
        parallel.mesh(shardings.spec, 1, data=2, fsdp=2, tensor=2),
        [batches()],
        frozen="transformer/tokens",
    )
    alone, _ = train(
        parallel.one_device(shardings.spec, 1), [batches()], frozen="transformer/tokens"
    )
    assert_close(params, alone)
    assert "transformer/tokens" not in params


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="needs 6 devices, and there are 8"):
        parallel.mesh(shardings.spec, 1, data=3, tensor=2)
    layout = parallel.mesh(shardings.spec, 1, tensor=8)
    odd = {"transformer/blocks/up/kernel": np.zeros((2, 32, 100), np.float32)}
    with pytest.raises(UserError, match="up/kernel of shape"):
        layout.put(odd)


def test_no_recompile_in_steady_state():
    goal, update, first, held = setup()
    layout = parallel.one_device(shardings.spec, 1)
    run = layout.compile_step(step.make_step(goal, update))
    source, now = batches(), layout.put(first)
    with jax.transfer_guard_device_to_host("disallow"):
        for k in range(len(source)):
            now, _ = run(now, held, layout.put_batch(source[k]))
    assert run._cache_size() == 1

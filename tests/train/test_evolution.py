"""The population's mirror images and the update by hand; on every layout the same; bad generations; refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from rmjax.models import shardings
from rmjax.train import evolution, optimizer, parallel, state

M, PROMPTS, DEVIATION, RATE = 8, 16, 0.1, 0.5
SGD = optax.sgd(RATE)
TARGET = {
    "lora/x/a": jnp.arange(6.0).reshape(2, 3) / 6,
    "lora/x/b": jnp.array([[1.0, -1.0], [0.0, 0.5], [2.0, 0.0]]),
}
START = {path: jnp.zeros_like(x) for path, x in TARGET.items()}
LAYOUTS = {
    "one_device()": parallel.one_device,
    "pmap()": parallel.pmap,
    "mesh(data=4, tensor=2)": functools.partial(parallel.mesh, data=4, tensor=2),
}


def parts(rule=SGD, axis=None):
    strategy = evolution.open_es(M, START, rule, deviation=DEVIATION)
    return evolution.create(strategy, jax.random.key(3), axis=axis)


def first(rule=SGD):
    # Copies: a compiled step donates what it is given.
    params = {path: jnp.copy(x) for path, x in START.items()}
    return state.create(params, rule.init(params), jax.random.key(0))


def badness(params):
    """The squared distance to the target, [M] of a population."""
    square = lambda path: jnp.sum((params[path] - TARGET[path][None]) ** 2, axis=(1, 2))
    return sum(square(path) for path in TARGET)


def batch(fitness, spread=0.0):
    """Two texts by each member in a row, in an order of its own: their mean advantage is the member's fitness."""
    rng = np.random.default_rng(0)
    record = np.stack([rng.permutation(2 * M) for _ in range(PROMPTS // 2)]).astype(np.int32)
    each = np.where(record < M, spread, -spread)
    advantage = np.asarray(fitness, np.float32)[record % M] + each.astype(np.float32)
    weight = np.ones_like(advantage)
    blank = lambda x: np.concatenate([x, np.full_like(x[:, :1], 7)], axis=1)  # a place of no text
    found = {"record": blank(record), "advantage": blank(advantage), "text_weight": blank(weight)}
    found["text_weight"][:, -1] = 0
    return found


def by_hand(params, population, fitness, rate=RATE):
    """Salimans et al. 2017: rate / (M deviation) * sum of centered ranks times noise."""
    ranks = (stats.rankdata(fitness) - 1) / (M - 1) - 0.5
    moved = {}
    for path, mean in params.items():
        noise = (np.asarray(population[path]) - np.asarray(mean)) / DEVIATION
        moved[path] = mean + rate / (M * DEVIATION) * np.tensordot(ranks, noise, 1)
    return moved


def test_a_population_is_of_mirrored_pairs_and_of_its_generation_alone():
    es = parts()
    made = es.members(TARGET, 5)
    for path, mean in TARGET.items():
        assert made[path].shape == (M, *mean.shape)
        noise = np.asarray(made[path] - mean[None]) / DEVIATION
        np.testing.assert_allclose(noise[: M // 2], -noise[M // 2 :], atol=1e-5)
        assert 0.6 < noise[: M // 2].std() < 1.4
        np.testing.assert_array_equal(made[path], es.members(TARGET, 5)[path])
        assert np.all(made[path] != es.members(TARGET, 6)[path])


@pytest.mark.parametrize("scale", [1.0, 1e4])  # of fitness, which its rank does not see
def test_an_update_is_the_one_by_hand(scale):
    es, now = parts(), first()
    for generation in range(3):
        population = es.members(now.params, generation)
        fitness = -scale * badness(population)
        wanted = by_hand(now.params, population, fitness)
        now, told = jax.jit(es.step)(now, {}, batch(fitness, spread=0.3))
        for path in wanted:
            np.testing.assert_allclose(now.params[path], wanted[path], rtol=1e-3, atol=1e-5)
        assert float(told["fitness"].value) == pytest.approx(float(fitness.mean()), rel=1e-4)
        assert float(told["fitness_deviation"].value) == pytest.approx(
            float(fitness.std()), rel=1e-3
        )
    assert int(now.step) == 3 and int(now.bad_step) == -1


def test_ties_share_their_rank():
    es, now = parts(), first()
    fitness = np.array([0, 1, 0, 1, 1, 1, 0, 0.5], np.float32)
    wanted = by_hand(START, es.members(START, 0), fitness)
    now, _ = jax.jit(es.step)(now, {}, batch(fitness))
    for path in wanted:
        np.testing.assert_allclose(now.params[path], wanted[path], rtol=1e-3, atol=1e-5)


def test_a_quadratic_is_climbed_by_the_optimizer_of_a_config():
    rule = optimizer.chain(
        optimizer.adamw(), optax.constant_schedule(0.05), clip_norm=1.0, weight_decay=0.0,
        rates={"/b$": 2.0},
    )  # fmt: skip
    es, now = parts(rule), first(rule)
    step, stacked = jax.jit(es.step), lambda params: {k: x[None] for k, x in params.items()}
    before = float(badness(stacked(now.params))[0])
    for generation in range(60):
        now, _ = step(now, {}, batch(-badness(es.members(now.params, generation))))
    assert float(badness(stacked(now.params))[0]) < 0.1 * before


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "one_device()"])
def test_layouts_agree(name):
    fitness, after = np.random.default_rng(1).normal(size=M), {}
    for each in ("one_device()", name):
        layout = LAYOUTS[each](shardings.spec, 1)
        step = layout.compile_step(parts(axis=layout.axis).step)
        now, _ = step(layout.put(first()), {}, layout.put_batch(batch(fitness)))
        after[each] = jax.tree.map(np.asarray, layout.get(now).params)
    for path in START:
        assert np.any(after[name][path] != 0)
        np.testing.assert_allclose(after[name][path], after["one_device()"][path], rtol=1e-5)


def test_a_bad_generation_changes_nothing_nor_does_any_after_it():
    step, good, bad = jax.jit(parts().step), batch(np.arange(M)), batch(np.arange(M))
    bad["advantage"][0, 0] = np.nan
    seen, now = [], first()
    for each in (good, bad, good):
        now = step(now, {}, each)[0]
        seen.append(now)
    assert [int(s.bad_step) for s in seen] == [-1, 1, 1] and int(now.step) == 3
    for later in seen[1:]:
        jax.tree.map(np.testing.assert_array_equal, later.params, seen[0].params)


@pytest.mark.parametrize(
    ("population", "deviation", "message"),
    [(7, 0.1, "not 7"), (0, 0.1, "not 0"), (8, 0.0, "deviation must be positive, got 0.0")],
)
def test_values_outside_their_range_are_refused(population, deviation, message):
    with pytest.raises(ValueError, match=message):
        evolution.open_es(population, START, optax.sgd(1.0), deviation=deviation)

"""Schedules, clipping, decay and rates, each by what one update is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmjax.train import optimizer

PARAMS = {
    "transformer/blocks/up/kernel": 2.0,
    "transformer/blocks/up/bias": 3.0,
    "transformer/blocks/mlp_norm/scale": 1.5,
    "transformer/tokens": -1.0,
    "head/score/kernel": 4.0,
    "head/gaps": 0.5,
    "head/tie_width": 0.25,
}
PARAMS = {path: jnp.full((2, 3), value) for path, value in PARAMS.items()}
DECAYED = {"transformer/blocks/up/kernel", "transformer/tokens", "head/score/kernel"}


def updates(gradient=0.0, rule=None, rate=1.0, steps=1, **options):
    """The last of some updates under the same gradient."""
    options = {"clip_norm": 0.0, "weight_decay": 0.0, "rates": {}} | options
    chain = optimizer.chain(rule or optimizer.sgd(), optax.constant_schedule(rate), **options)
    state = chain.init(PARAMS)
    grads = jax.tree.map(lambda x: jnp.full_like(x, gradient), PARAMS)
    for _ in range(steps):
        found, state = chain.update(grads, state, PARAMS)
    return found


@pytest.mark.parametrize("name", optimizer.SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.0), (100, 0.1), (10, 0.1), (1, 0.06)])
def test_schedules_rise_to_the_peak_and_fall_to_the_end(name, steps, warmup):
    rate = optimizer.SCHEDULES[name](steps, peak=0.5, warmup=warmup)
    value = np.array([rate(k) for k in range(steps + 1)])
    warm = round(steps * warmup)
    np.testing.assert_allclose(value[:warm], 0.5 * np.arange(1, warm + 1) / max(warm, 1), 1e-6)
    assert value[0] > 0 and value[warm] == pytest.approx(0.5)
    done = np.arange(steps - warm + 1) / (steps - warm)
    shape = {"constant": 1 + 0 * done, "linear": 1 - done, "cosine": (1 + np.cos(np.pi * done)) / 2}
    np.testing.assert_allclose(value[warm:], 0.5 * shape[name], atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_end_may_be_above_zero(name):
    rate = optimizer.SCHEDULES[name](20, peak=1.0, warmup=0.1, end=0.2)
    assert rate(20) == pytest.approx(0.2) and rate(11) == pytest.approx(0.6)


def test_a_warm_up_outside_its_range_is_refused():
    for schedule in optimizer.SCHEDULES.values():
        for warmup in (-0.1, 1.0):
            with pytest.raises(ValueError, match="warmup is a share"):
                schedule(10, peak=1.0, warmup=warmup)


def test_decay_pulls_kernels_and_embeddings_alone():
    found = updates(weight_decay=0.1, rate=0.5)
    for path, value in PARAMS.items():
        want = -0.5 * 0.1 * value if path in DECAYED else 0 * value
        np.testing.assert_allclose(found[path], want, rtol=1e-6)


def test_decay_is_decoupled_from_clipping_and_from_the_rule():
    found = updates(1.0, optimizer.adamw(eps=1e-8), weight_decay=0.1, clip_norm=1e-3)
    path = "head/score/kernel"
    np.testing.assert_allclose(found[path], -1.0 - 0.1 * PARAMS[path], rtol=1e-3)


def test_the_first_pattern_that_matches_sets_the_rate():
    found = updates(1.0, rates={"up/bias$": 0.25, "^transformer/": 0.5}, weight_decay=0.1)
    for path, value in PARAMS.items():
        factor = 0.25 if path.endswith("up/bias") else 0.5 if path.startswith("transformer/") else 1
        want = -factor * (1 + 0.1 * value * (path in DECAYED))
        np.testing.assert_allclose(found[path], want, rtol=1e-6)
    with pytest.raises(ValueError, match="'encoder/' matches no trained parameter"):
        updates(rates={"encoder/": 0.5})


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_gradients_are_clipped_by_their_global_norm(limit):
    norm = 3 * np.sqrt(6 * len(PARAMS))
    found = updates(3.0, clip_norm=limit)
    for x in found.values():
        np.testing.assert_allclose(x, -3.0 * min(1, limit / norm), rtol=1e-5)
    assert all(np.all(x == 0) for x in updates(0.0, clip_norm=limit).values())


def test_rules_are_their_formulas():
    size = lambda rule, g, steps=1: float(updates(g, rule, steps=steps)["head/gaps"][0, 0])
    for g in (1e-3, -40.0):
        assert size(optimizer.lion(), g) == -np.sign(g)
        assert size(optimizer.sgd(), g) == pytest.approx(-g)
        assert size(optimizer.sgd(momentum=0.5), g, steps=3) == pytest.approx(-1.75 * g)
        assert size(optimizer.adamw(), g, steps=3) == pytest.approx(-g / (abs(g) + 1e-5), rel=1e-4)
    assert abs(size(optimizer.adamw(), 1e-7)) < 0.02  # a gradient that is but rounding moves little
    wide = jnp.ones((128, 256))
    state = optimizer.adafactor().init({"x": wide})
    assert max(x.size for x in jax.tree.leaves(state)) == 256  # a row and a column, not a matrix
    found, _ = optimizer.adafactor().update({"x": 7 * wide}, state, {"x": wide})
    np.testing.assert_allclose(found["x"], 1.0, rtol=1e-3)


@pytest.mark.parametrize("name", ["clip_norm", "weight_decay", "rates"])
def test_negative_numbers_are_refused(name):
    with pytest.raises(ValueError, match="must not be negative"):
        updates(**{name: {"head": -1.0} if name == "rates" else -1.0})

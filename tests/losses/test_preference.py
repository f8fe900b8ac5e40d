"""Preference losses against their published formulas, written again in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax import lookup
from rmjax.losses import LOSSES, preference

RNG = np.random.default_rng(0)
Q = 9
POLICY = {"chosen_log_probs": RNG.normal(-12, 5, Q), "rejected_log_probs": RNG.normal(-12, 5, Q)}
REFERENCE = {"chosen_reference": RNG.normal(-12, 5, Q), "rejected_reference": RNG.normal(-12, 5, Q)}
LENGTHS = {
    "chosen_lengths": RNG.integers(1, 9, Q).astype(float),
    "rejected_lengths": RNG.integers(1, 9, Q).astype(float),
}
for side in ("chosen", "rejected"):  # log-probabilities are below 0
    POLICY[f"{side}_log_probs"] = np.minimum(POLICY[f"{side}_log_probs"], -0.5)
sigmoid = lambda x: 1 / (1 + np.exp(-x))
gap = lambda c, r, cr, rr: (c - cr) - (r - rr)


def ipo(c, r, cr, rr, nc, nr, beta):
    return ((c - cr) / nc - (r - rr) / nr - 1 / (2 * beta)) ** 2


def orpo(c, r, nc, nr):
    p, q = np.exp(c / nc), np.exp(r / nr)
    return -np.log(sigmoid(np.log((p / (1 - p)) / (q / (1 - q)))))


# name, options, the formula on the arrays in the loss's order
REFERENCES = [
    ("dpo", {}, lambda *x: -np.log(sigmoid(0.1 * gap(*x)))),
    ("dpo", {"beta": 0.5, "label_smoothing": 0.2},
     lambda *x: -0.8 * np.log(sigmoid(0.5 * gap(*x))) - 0.2 * np.log(sigmoid(-0.5 * gap(*x)))),
    ("ipo", {}, lambda *x: ipo(*x, 0.1)),
    ("ipo", {"beta": 0.7}, lambda *x: ipo(*x, 0.7)),
    ("hinge_norm", {"beta": 0.3}, lambda *x: np.maximum(0, 1 - 0.3 * gap(*x))),
    ("slic", {"delta": 2.0}, lambda c, r: np.maximum(0, 2 - (c - r))),
    ("orpo", {}, orpo),
    ("simpo", {}, lambda c, r, nc, nr: -np.log(sigmoid(2.5 * (c / nc - r / nr) - 1.375))),
    ("simpo", {"beta": 2.0, "gamma": 0.0}, lambda c, r, nc, nr: -np.log(sigmoid(2 * (c / nc - r / nr)))),
    ("cpo", {}, lambda c, r: -np.log(sigmoid(0.1 * (c - r))) - c),
    ("cpo", {"beta": 0.4, "alpha": 0.5}, lambda c, r: -np.log(sigmoid(0.4 * (c - r))) - 0.5 * c),
]  # fmt: skip


def names_of(name):
    return list(lookup.arrays(LOSSES[name]))


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [pytest.param(*case, id=f"{case[0]}({case[1]})") for case in REFERENCES],
)
def test_value_and_gradient(name, options, reference):
    arrays = {n: (POLICY | REFERENCE | LENGTHS)[n] for n in names_of(name)}
    floats = {n: jnp.asarray(x, jnp.float32) for n, x in arrays.items()}
    loss = lambda arrays: LOSSES[name](**arrays, **options)
    np.testing.assert_allclose(loss(floats), reference(*arrays.values()), rtol=5e-5, atol=1e-5)
    grads = jax.grad(lambda arrays: jnp.sum(loss(arrays)))(floats)
    for n, got in grads.items():
        if n in POLICY:
            step = lambda h, n=n: reference(*(arrays | {n: arrays[n] + h}).values())
            want = (step(1e-5) - step(-1e-5)) / 2e-5
            np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-5)
        elif n in REFERENCE:
            assert not np.any(got)


def test_every_loss_has_a_reference():
    here = {n for n, f in LOSSES.items() if f.__module__ == preference.__name__}
    assert {case[0] for case in REFERENCES} | {"kto"} == here


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge_norm"])
def test_a_policy_that_is_its_reference_starts_at_the_known_value(name):
    arrays = {n: jnp.asarray(POLICY[n], jnp.float32) for n in POLICY}
    arrays |= {f"{side}_reference": arrays[f"{side}_log_probs"] for side in ("chosen", "rejected")}
    if name == "ipo":
        arrays |= {n: jnp.asarray(x, jnp.float32) for n, x in LENGTHS.items()}
    start = {"dpo": np.log(2), "ipo": 25.0, "hinge_norm": 1.0}[name]
    np.testing.assert_allclose(LOSSES[name](**arrays), start, rtol=1e-6)


def test_kto_pulls_good_texts_up_and_bad_ones_down_around_the_point():
    policy, reference = RNG.normal(-9, 4, (2, Q))
    good, point = (np.arange(Q) % 3 == 0).astype(float), np.full(Q, 0.7)

    def want(policy):
        lead = 0.3 * (policy - reference - 0.7)
        return np.where(good == 1, 1.2 * (1 - sigmoid(lead)), 0.8 * (1 - sigmoid(-lead)))

    floats = [jnp.asarray(x, jnp.float32) for x in (policy, reference, good, point)]
    loss = lambda *x: preference.kto(*x, beta=0.3, desirable_weight=1.2, undesirable_weight=0.8)
    np.testing.assert_allclose(loss(*floats), want(policy), rtol=1e-5)
    grads = jax.grad(lambda *x: jnp.sum(loss(*x)), argnums=(0, 1, 3))(*floats)
    slope = (want(policy + 1e-5) - want(policy - 1e-5)) / 2e-5
    np.testing.assert_allclose(grads[0], slope, rtol=1e-4, atol=1e-7)
    assert np.all((np.asarray(grads[0]) < 0) == (good == 1))
    assert not np.any(grads[1]) and not np.any(grads[2])


def test_orpo_is_finite_where_the_probability_is_one_or_none():
    ends = jnp.asarray([0.0, 0.0, -1000.0, -1000.0]), jnp.asarray([0.0, -1000.0, 0.0, -1000.0])
    ones = jnp.ones(4)
    value, grads = jax.value_and_grad(
        lambda c, r: jnp.sum(preference.orpo(c, r, ones, ones)), argnums=(0, 1)
    )(*ends)
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in grads)
    near = preference.orpo(jnp.asarray([-1e-4]), jnp.asarray([-3.0]), ones[:1], ones[:1])
    want = orpo(-1e-4, -3.0, 1, 1)
    np.testing.assert_allclose(near, want, rtol=1e-3)


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge_norm", "simpo", "cpo"])
def test_a_beta_of_zero_is_refused(name):
    arrays = {
        n: jnp.asarray((POLICY | REFERENCE | LENGTHS)[n], jnp.float32) for n in names_of(name)
    }
    with pytest.raises(ValueError, match="beta must be positive, got 0.0"):
        LOSSES[name](**arrays, beta=0.0)

"""Means add up however the values were split, and weight 0 hides anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.mean import Mean

V = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
W = np.random.default_rng(1).random((6, 4)).astype(np.float32)
VALUES, WEIGHTS = jnp.asarray(V), jnp.asarray(W)


def test_parts_of_unequal_weight_add_to_the_whole():
    parts = [Mean.of(VALUES[i : i + 2], WEIGHTS[i : i + 2]) for i in (0, 2, 4)]
    whole = parts[0] + parts[1] + parts[2]
    np.testing.assert_allclose(whole.value, np.average(V, weights=W), rtol=1e-6)
    np.testing.assert_allclose(whole.weight, W.sum(), rtol=1e-6)
    np.testing.assert_allclose(Mean.of(VALUES).value, V.mean(), rtol=1e-5)


@pytest.mark.parametrize("hidden", [np.nan, np.inf, 1e30])
def test_weight_zero_hides_anything_from_value_and_gradient(hidden):
    weights, spoilt = WEIGHTS.at[2].set(0), VALUES.at[2].set(hidden)
    mean = lambda values: Mean.of(values, weights).value
    value, gradient = jax.value_and_grad(mean)(spoilt)
    kept = np.delete(np.arange(6), 2)
    np.testing.assert_allclose(value, np.average(V[kept], weights=W[kept]), rtol=1e-6)
    np.testing.assert_allclose(gradient, weights / weights.sum(), rtol=1e-6)


def test_half_precision_is_summed_in_single():
    assert float(Mean.of(jnp.ones(4097, jnp.bfloat16)).total) == 4097  # in bfloat16: 4096


def test_nothing_counted_is_nan_and_means_are_trees():
    assert np.isnan(Mean.of(VALUES, jnp.zeros_like(VALUES)).value)
    halved = jax.tree.map(lambda x: x / 2, Mean.of(VALUES, WEIGHTS))
    np.testing.assert_allclose(halved.value, np.average(V, weights=W), rtol=1e-6)
    stacked = jax.vmap(Mean.of)(VALUES, WEIGHTS)
    np.testing.assert_allclose(stacked.value, np.average(V, axis=1, weights=W), rtol=1e-5)

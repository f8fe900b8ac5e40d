"""Projections and their derivative, normalization, dropout by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rmjax.models import layers, transformer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 8)).astype(np.float32)
KERNEL = RNG.normal(size=(8, 6)).astype(np.float32)
COTANGENT = RNG.normal(size=(3, 5, 6)).astype(np.float32)
rounded = lambda x, dtype: np.asarray(jnp.asarray(x, dtype), np.float64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lead", [(3, 5), (15,)])
def test_project_and_its_gradient_are_products_of_rounded_operands(dtype, lead):
    x, cotangent = X.reshape(*lead, 8), COTANGENT.reshape(*lead, 6)
    value, pull = jax.vjp(lambda x, k: layers.project(x, k, dtype), jnp.array(x), jnp.array(KERNEL))
    got = (value, *pull(jnp.array(cotangent)))
    for cast, tolerance in ((dtype, 1e-5), ("float32", {"float32": 1e-5, "bfloat16": 2e-2}[dtype])):
        a, k, g = (rounded(x, cast).astype(float) for x in (x, KERNEL, cotangent))
        rows, grads = a.reshape(-1, 8), g.reshape(-1, 6)
        for ours, exact in zip(got, (a @ k, g @ k.T, rows.T @ grads), strict=True):
            assert ours.dtype == jnp.float32
            np.testing.assert_allclose(ours, exact, atol=tolerance * np.abs(exact).max())


@pytest.mark.parametrize("name", transformer.ACTIVATIONS)
def test_activations_and_their_slopes_are_the_formulas(name):
    x = np.array([-30.0, -3.0, -1.1, -0.2, 0.4, 1.0, 2.5, 30.0])
    exact = {
        "gelu": lambda x: x * special.ndtr(x),
        "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x * special.expit(x),
    }[name]
    value, pull = jax.vjp(transformer.ACTIVATIONS[name], jnp.array(x, jnp.float32))
    np.testing.assert_allclose(value, exact(x), rtol=1e-4, atol=1e-5)
    slope = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(pull(jnp.ones_like(value))[0], slope, rtol=1e-4, atol=1e-5)


def test_norms_are_the_formulas():
    x, scale, bias = jnp.asarray(X * 3 + 100), jnp.arange(8.0), jnp.linspace(-1, 1, 8)
    exact = np.asarray(x, np.float64)
    centered = exact - exact.mean(-1, keepdims=True)
    want = centered / np.sqrt(exact.var(-1, keepdims=True) + 0.1) * np.arange(8) + np.asarray(bias)
    got = layers.Norm("layer", 0.1).apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    want = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 0.1) * np.arange(8)
    got = layers.Norm("rms", 0.1).apply({"params": {"scale": scale}}, x)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_row_alone_is_normalized_as_among_others(kind):
    norm, x = layers.Norm(kind, 1e-5), jnp.asarray(X)
    slope = jnp.array(RNG.normal(size=X.shape), jnp.float32)
    variables = jax.tree.map(lambda p: p + 0.5, norm.init(jax.random.key(0), x))
    run = lambda v, x, g: jnp.sum(norm.apply(v, x) * g)
    whole, among = jax.grad(run, (0, 1))(variables, x, slope)
    each = [jax.grad(run, (0, 1))(variables, x[i : i + 1], slope[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(jnp.concatenate([x for _, x in each]), among, atol=1e-6)
    summed = jax.tree.map(lambda *g: sum(g), *[v for v, _ in each])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), summed, whole)


def drop(x, row, key=0, rate=0.25):
    module = layers.Dropout(rate)
    return np.asarray(module.apply({}, x, row, rngs={"dropout": jax.random.key(key)}))


def test_dropout_depends_on_the_row_id_alone():
    x, row = jnp.ones((4, 6, 7)), jnp.array([5, 0, 9, 5])
    whole = drop(x, row)
    np.testing.assert_array_equal(whole[0], whole[3])
    assert np.any(whole[0] != whole[1])
    np.testing.assert_array_equal(
        drop(x[1:], row[1:]), whole[1:]
    )  # whatever device or part it is in
    assert np.any(drop(x, row, key=1) != whole)


def test_dropout_keeps_the_mean_and_its_rate():
    kept = drop(jnp.full((8, 100, 50), 3.0), jnp.arange(8))
    assert set(np.unique(kept)) == {np.float32(0), np.float32(4)}
    assert np.mean(kept == 0) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / kept.size))
    x = jnp.asarray(X)
    for row, rate in ((None, 0.25), (jnp.arange(3), 0.0)):
        np.testing.assert_array_equal(drop(x, row, rate=rate), X)

"""Attention is the formula; over tiles it is that over whole rows, in every family, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.data.packing import visible_tiles
from rmjax.models import attention, presets
from rmjax.models.transformer import Transformer
from tests.models.test_switches import ROTARY, T5

RNG = np.random.default_rng(0)
VOCAB = ROTARY.vocab_size
ENCODER = presets.encoder(VOCAB, 16, 2, 64)
# Rows of texts of these lengths and padding; the second text of a row is a prompt with two completions of 5 and 6.
ROWS = ([9, 20, 3, 7], [2, 14, 10], [21, 15, 2, 1])
LENGTH = 42  # not a multiple of the tile


def test_attention_is_a_loop_over_heads_and_padding_is_finite():
    query = RNG.normal(size=(2, 4, 4, 5)).astype(np.float32)  # 4 heads share 2 heads of keys
    key, value = (RNG.normal(size=(2, 4, 2, 5)).astype(np.float32) for _ in range(2))
    bias = RNG.normal(size=(2, 4, 4, 4)).astype(np.float32)
    mask = RNG.uniform(size=(2, 1, 4, 4)) < 0.5
    mask[0, 0, 1] = False
    mask[..., 3, 0] = True
    got = attention.attend(
        *map(jnp.asarray, (query, key, value, mask)), "float32", 0.3, jnp.asarray(bias)
    )
    assert np.all(np.isfinite(got))
    for r, t, h in np.ndindex(2, 4, 4):
        seen = mask[r, 0, t]
        if seen.any():
            weight = np.exp(0.3 * key[r, seen, h // 2] @ query[r, t, h] + bias[r, h, t, seen])
            want = weight @ value[r, seen, h // 2] / weight.sum()
            np.testing.assert_allclose(got[r, t, h], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_gradients_are_those_of_the_formula(dtype, error):
    query, slope = (jnp.asarray(RNG.normal(size=(2, 7, 4, 8)), jnp.float32) for _ in range(2))
    key, value = (jnp.asarray(RNG.normal(size=(2, 9, 2, 8)), jnp.float32) for _ in range(2))
    bias = jnp.asarray(RNG.normal(size=(2, 4, 7, 9)), jnp.float32)
    mask = jnp.asarray(RNG.uniform(size=(2, 1, 7, 9)) < 0.7).at[..., 0].set(True)

    def formula(query, key, value, bias):
        keys, values = (jnp.repeat(x, 2, axis=2) for x in (key, value))
        logits = jnp.einsum("rthe,rshe->rhts", query, keys, precision="highest") * 0.3 + bias
        shares = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf))
        return jnp.sum(slope * jnp.einsum("rhts,rshe->rthe", shares, values, precision="highest"))

    def made(query, key, value, bias):
        return jnp.sum(slope * attention.attend(query, key, value, mask, dtype, 0.3, bias))

    wanted, got = (jax.grad(f, range(4))(query, key, value, bias) for f in (formula, made))
    for own, other in zip(got, wanted, strict=True):
        assert jnp.linalg.norm(own - other) < error * jnp.linalg.norm(other)


def rows(shared):
    """Tokens, positions, segments and branches of ROWS [4, R, T]."""
    found = np.zeros((4, len(ROWS), LENGTH), np.int32)
    found[0] = RNG.integers(0, VOCAB, found[0].shape)
    for row, lengths in enumerate(ROWS):
        starts = np.cumsum([0, *lengths[:-1]])
        for segment, (start, length) in enumerate(zip(starts, lengths, strict=True), 1):
            at, branch = np.arange(length), np.zeros(length, int)
            if shared and segment == 2:
                first, second = length - 11, length - 6
                branch = np.repeat([0, 1, 2], [first, 5, 6])
                at[second:] -= 5
            found[1:, row, start : start + length] = at, np.full(length, segment), branch
    return found


def tiles_of(segments, causal, spare=2):
    """Every pair of tiles that see each other [R, N, 2], the last `spare` of the longest list being none."""
    row, query, key = visible_tiles(segments, attention.TILE, causal=causal)
    none = -(-LENGTH // attention.TILE)
    found = np.full((len(segments), np.bincount(row).max() + spare, 2), none, np.int32)
    found[row, np.arange(len(row)) - np.searchsorted(row, row)] = np.stack([query, key], axis=1)
    return found


@pytest.mark.parametrize("config", [ENCODER, ROTARY, T5], ids=["encoder", "rotary", "t5"])
def test_tiles_give_what_whole_rows_give(config, monkeypatch):
    monkeypatch.setattr(attention, "TILE", 8)
    causal = config.kind == "decoder"
    made = rows(shared=causal)
    *inputs, branches = map(jnp.asarray, made)
    segments = made[2]
    tiles = jnp.asarray(tiles_of(segments, causal))
    assert tiles.shape[1] < 6 * 6  # the list leaves something out
    module, real = Transformer(config), jnp.asarray(segments > 0)[..., None]
    variables = jax.jit(module.init)(jax.random.key(0), *inputs)
    variables = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), variables
    )
    weights = RNG.normal(size=(*segments.shape, config.width)).astype(np.float32)

    @jax.jit
    def run(variables, tiles):
        hidden, _ = module.apply(variables, *inputs, branches=branches, tiles=tiles)
        return jnp.sum(jnp.where(real, hidden * weights, 0.0)), hidden

    both = [
        jax.value_and_grad(run, has_aux=True)(variables, t) for t in (None, tiles, tiles[:, :-5])
    ]
    whole, listed, short = ((np.asarray(hidden), grads) for (_, hidden), grads in both)
    assert np.all(np.isfinite(listed[0]))
    np.testing.assert_allclose(
        listed[0][segments > 0], whole[0][segments > 0], rtol=1e-4, atol=1e-4
    )
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(whole[1]))
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5 * largest),
        listed[1], whole[1],
    )  # fmt: skip
    # A list without some pair gives something else: the comparison can fail.
    assert np.abs(short[0] - whole[0])[segments > 0].max() > 1e-2

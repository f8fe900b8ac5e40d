"""Pooling against loops over texts, what each head offers, and a whole reward model on packed rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from rmjax.data.examples import singles
from rmjax.data.pipeline import score_batches
from rmjax.models import heads, presets
from rmjax.models.transformer import Transformer

RNG = np.random.default_rng(0)
# Row 0: texts of 3, 1 and 4 tokens and padding; row 1: one of 9. P is 4, so there are slots without a text.
LENGTHS = ((3, 1, 4), (9,))
SEGMENTS, POSITIONS = np.zeros((2, 2, 9), np.int32)
SCORE_AT = np.zeros((2, 4), np.int32)
for row, lengths in enumerate(LENGTHS):
    for i, end in enumerate(np.cumsum(lengths)):
        SEGMENTS[row, end - lengths[i] : end] = i + 1
        POSITIONS[row, end - lengths[i] : end] = np.arange(lengths[i])
        SCORE_AT[row, i] = end - 1
HIDDEN = RNG.normal(size=(2, 9, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("pooling", "of"),
    [("mean", lambda x: x.mean(axis=0)), ("first", lambda x: x[0]), ("last", lambda x: x[-1])],
)
def test_pooling_is_a_loop_over_texts(pooling, of):
    inputs = map(jnp.asarray, (HIDDEN, POSITIONS, SEGMENTS, SCORE_AT))
    got = heads.pool(*inputs, pooling=pooling)
    assert np.all(np.isfinite(got))
    for row, lengths in enumerate(LENGTHS):
        for i in range(len(lengths)):
            want = of(HIDDEN[row, SEGMENTS[row] == i + 1])
            np.testing.assert_allclose(got[row, i], want, rtol=1e-5, atol=1e-6)


def test_an_empty_row_pools_to_something_finite_and_other_poolings_are_refused():
    nothing = jnp.zeros((1, 9), jnp.int32)
    hidden = jnp.asarray(HIDDEN[:1])
    for pooling in heads.POOLINGS:
        got = heads.pool(hidden, nothing, nothing, nothing[:, :4], pooling=pooling)
        assert got.shape == (1, 4, 6) and np.all(np.isfinite(got))
        assert pooling != "mean" or not np.any(got)
    with pytest.raises(ValueError, match="pooling must be one of"):
        heads.pool(hidden, nothing, nothing, nothing[:, :4], pooling="max")


def made(head, width=6, key=0):
    x = jnp.asarray(RNG.normal(size=(2, 3, width)), jnp.float32)
    params = head.init(jax.random.key(key), x)
    return x, params["params"], head.apply(params, x)


@pytest.mark.parametrize("width", [63, 255])
def test_a_fresh_heads_weights_have_deviation_one_over_root_of_width_plus_one(width):
    _, params, outputs = made(heads.Classes(values=tuple(map(float, range(40)))), width)
    kernel = params["logits"]["kernel"]
    error = 4 / np.sqrt(2 * kernel.size)
    assert np.std(kernel) * np.sqrt(width + 1) == pytest.approx(1, abs=error)
    assert not np.any(params["logits"]["bias"])
    assert outputs["logits"].shape == (2, 3, 40)


def test_scalar_is_a_dot_product_and_offers_a_tie_width_where_asked():
    x, params, outputs = made(heads.Scalar())
    want = np.asarray(x, np.float64) @ params["score"]["kernel"][:, 0]
    np.testing.assert_allclose(outputs["score"], want, rtol=1e-5)
    assert outputs.keys() == {"score"}
    _, params, outputs = made(heads.Scalar(ties=True))
    assert outputs["tie_width"].shape == () and params.keys() == {"score", "tie_width"}


def test_the_score_of_classes_is_the_mean_rating():
    _, _, outputs = made(heads.Classes(values=(-2.0, 0.0, 1.0, 5.0)))
    share = special.softmax(np.asarray(outputs["logits"], np.float64), axis=-1)
    np.testing.assert_allclose(outputs["score"], share @ [-2, 0, 1, 5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_thresholds_are_centered_at_first_and_increase_always(classes):
    head = heads.Ordinal(classes=classes)
    x, params, outputs = made(head)
    thresholds = np.asarray(outputs["thresholds"])
    assert thresholds.shape == (classes - 1,) and outputs["score"].shape == (2, 3)
    np.testing.assert_allclose(thresholds, -thresholds[::-1], atol=1e-5)
    gaps = 3 * RNG.normal(size=classes - 1)
    moved = head.apply({"params": params | {"gaps": jnp.asarray(gaps)}}, x)["thresholds"]
    np.testing.assert_allclose(np.diff(moved), np.log1p(np.exp(gaps[1:])), rtol=1e-4, atol=1e-5)
    assert moved[0] - thresholds[0] == pytest.approx(gaps[0], abs=1e-5)


def test_gaussian_offers_a_mean_and_a_log_variance():
    x, params, outputs = made(heads.Gaussian())
    want = np.asarray(x, np.float64) @ params["score"]["kernel"]
    np.testing.assert_allclose(outputs["score"], want[..., 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs["log_variance"], want[..., 1], rtol=1e-4, atol=1e-6)


def test_attributes_have_a_score_each_and_a_weighted_sum():
    x, params, outputs = made(heads.Attributes(weights=(("a", 0.5), ("b", 0.0), ("c", -2.0))))
    want = np.asarray(x, np.float64) @ params["attributes"]["kernel"]
    np.testing.assert_allclose(outputs["attribute_scores"], want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        outputs["score"], want @ np.array([0.5, 0, -2]), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("pooling", heads.POOLINGS)
def test_a_score_does_not_depend_on_what_a_text_is_packed_with(pooling):
    rng = np.random.default_rng(1)
    texts = [rng.integers(1, 20, n).astype(np.int32) for n in (5, 9, 3, 12)]
    module = heads.RewardModel(Transformer(presets.encoder(20, 8, 1, 32)), heads.Scalar(), pooling)
    names = ("tokens", "positions", "segments", "score_at")
    apply, params = jax.jit(module.apply), None

    def scores(texts):
        nonlocal params
        [(batch, order, places)] = score_batches(singles(texts), pad_id=0, budget=64)
        inputs = [jnp.asarray(batch[name]) for name in names]
        params = params or jax.jit(module.init)(jax.random.key(0), *inputs)
        score = np.asarray(apply(params, *inputs)["score"]).ravel()[places]
        return score[np.argsort(order)]

    packed = scores(texts)
    alone = np.concatenate([scores([text]) for text in texts])
    np.testing.assert_allclose(packed, alone, rtol=1e-5, atol=1e-6)
    assert np.ptp(packed) > 1e-2

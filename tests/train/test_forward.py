"""What a batch offers to losses, how terms are weighted, and which parameters are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax import lookup
from rmjax.losses import LOSSES
from rmjax.mean import Mean
from rmjax.train import forward, objective, state

BATCH = {
    "tokens": np.array([[3, 4, 5], [6, 7, 0]]),
    "positions": np.zeros((2, 3), int),
    "segments": np.ones((2, 3), int),
    "score_at": np.array([[2, 0], [1, 0]]),
    "row": np.array([5, 9]),
    "text_weight": np.array([[1.0, 0.0], [2.0, 0.5]]),
    "rating": np.array([[1.0, 7.0], [-1.0, 0.25]]),
    "chosen": np.array([[1, 0, 0], [0, 0, 0]]),
    "rejected": np.array([[0, 1, 0], [1, 0, 0]]),
    "pair_weight": np.array([[0.5, 0.0, 0.0], [1.5, 0.0, 0.0]]),
}
BATCH = {
    k: jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32) for k, x in BATCH.items()
}
PARAMS = {"head/kernel": jnp.array(0.5), "head/level": jnp.array(0.1)}


def apply(variables, tokens, positions, segments, score_at, row=None, *, branches=None, rngs=None):
    """score = kernel * the scored token + level, with noise from (key, row) where there is dropout."""
    assert (row is None) == (rngs is None)
    head = variables["params"]["head"]
    score = head["kernel"] * jnp.take_along_axis(tokens, score_at, axis=1) + head["level"]
    if row is not None:
        score += row[:, None] + jax.random.uniform(rngs["dropout"], score.shape)
    return {"score": score}


SCORE = np.array([[2.6, 1.6], [3.6, 3.1]])


def test_pairs_are_gathered_from_each_rows_scores():
    offered = forward.scores(apply)(PARAMS, {}, BATCH, None)
    np.testing.assert_allclose(offered["score"], SCORE, rtol=1e-6)
    np.testing.assert_allclose(offered["chosen"], [[1.6, 2.6, 2.6], [3.6] * 3], rtol=1e-6)
    np.testing.assert_allclose(offered["rejected"], [[2.6, 1.6, 2.6], [3.1, 3.6, 3.6]], rtol=1e-6)
    assert offered["rating"] is BATCH["rating"]
    texts = {k: x for k, x in BATCH.items() if k not in ("chosen", "rejected")}
    assert "chosen" not in forward.scores(apply)(PARAMS, {}, texts, None)


def test_lists_are_gathered_from_each_rows_scores():
    items = jnp.array([[[1, 0]], [[1, 1]]])  # two rows of one group of two
    offered = forward.scores(apply)(PARAMS, {}, {**BATCH, "group_items": items}, None)
    want = [[[1.6, 2.6]], [[3.1, 3.1]]]
    np.testing.assert_allclose(offered["group_scores"], want, rtol=1e-6)
    assert "group_scores" not in forward.scores(apply)(PARAMS, {}, BATCH, None)


def test_frozen_parameters_are_part_of_the_model_and_a_key_switches_dropout_on():
    run = forward.scores(apply)
    level = {"head/level": PARAMS["head/level"]}
    kernel = {"head/kernel": PARAMS["head/kernel"]}
    np.testing.assert_allclose(run(kernel, level, BATCH, None)["score"], SCORE, rtol=1e-6)
    noise = run(kernel, level, BATCH, jax.random.key(0))["score"] - SCORE - np.array([[5], [9]])
    assert np.all((noise >= 0) & (noise < 1)) and np.ptp(noise) > 0


def test_terms_are_normalized_each_by_its_own_weight():
    terms = lookup.terms("2 * mse() - 0.5 * bradley_terry()", LOSSES, key="loss")
    metrics = {"accuracy": forward.accuracy, "gap": forward.gap}
    goal = objective.create(terms, forward.scores(apply), metrics)
    assert goal.coefs == {"mse": 2.0, "bradley_terry": -0.5}
    weights = goal.weights({k: BATCH[k] for k in ("text_weight", "pair_weight")})
    assert {k: float(w) for k, w in weights.items()} == {"mse": 3.5, "bradley_terry": 2.0}
    totals, means = goal.sums(PARAMS, {}, BATCH, None)
    squares = 1.6**2 + 2 * 4.6**2 + 0.5 * 2.85**2
    pairs = 0.5 * np.log1p(np.exp(1.0)) + 1.5 * np.log1p(np.exp(-0.5))
    assert float(totals["mse"]) == pytest.approx(squares)
    assert float(totals["bradley_terry"]) == pytest.approx(pairs)
    assert float(means["mse"].value) == pytest.approx(squares / 3.5)
    assert float(means["accuracy"].value) == pytest.approx(1.5 / 2)
    assert float(means["gap"].value) == pytest.approx((-0.5 + 1.5 * 0.5) / 2)
    assert all(isinstance(m, Mean) for m in means.values())


def test_accuracy_counts_a_tie_as_half():
    chosen, rejected = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 2.0, 2.0])
    np.testing.assert_array_equal(forward.accuracy(chosen, rejected), [0, 0.5, 1])
    np.testing.assert_array_equal(forward.gap(chosen, rejected), [-1, 0, 1])


def test_a_missing_array_is_named_and_an_optional_one_is_taken_where_offered():
    with pytest.raises(KeyError, match=r"needs \['rating'\].*there are \['score'\]"):
        objective.select(LOSSES["mse"], {"score": jnp.zeros(2)})
    offered = dict.fromkeys(("chosen", "rejected", "margins", "rating"), jnp.zeros(2))
    found = objective.select(LOSSES["bradley_terry"], offered)
    assert found.keys() == {"chosen", "rejected", "margins"}


def test_the_first_state_and_the_keys_of_its_steps():
    first = state.create(PARAMS, (), jax.random.key(3))
    assert (int(first.step), int(first.bad_step)) == (0, -1) and first.params is PARAMS
    key = lambda step: jax.random.key_data(forward.dropout_key(first.rng, jnp.array(step)))
    want = jax.random.key_data(jax.random.fold_in(jax.random.key(3), 2))
    np.testing.assert_array_equal(key(2), want)
    assert np.any(key(0) != key(1))


def test_paths_and_back():
    tree = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert state.flatten(tree) == {"a/b/c": 1, "a/d": 2, "e": 3}
    assert state.unflatten(state.flatten(tree)) == tree


def test_parameters_are_split_by_a_pattern():
    trained, held = state.split(PARAMS, "level$")
    assert (set(trained), set(held)) == ({"head/kernel"}, {"head/level"})
    assert state.split(PARAMS, "") == (PARAMS, {})
    with pytest.raises(ValueError, match="'tokens' matches no parameter"):
        state.split(PARAMS, "tokens")
    with pytest.raises(ValueError, match="'head/' freezes every parameter"):
        state.split(PARAMS, "head/")

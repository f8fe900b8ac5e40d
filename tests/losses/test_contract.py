"""What every loss of the table owes the step: a new loss is held to it, or fails here for want of an example."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from rmjax import lookup
from rmjax.losses import LOSSES
from rmjax.train import objective

# Arrays of two rows of three by the names that losses use; two slots weigh nothing.
SHAPE = (2, 3)
RNG = np.random.default_rng(0)
ARRAYS = {
    "score": RNG.normal(size=SHAPE),
    "rating": RNG.normal(size=SHAPE),
    "probability": RNG.uniform(size=SHAPE),
    "log_variance": RNG.normal(size=SHAPE),
    "chosen": RNG.normal(size=SHAPE),
    "rejected": RNG.normal(size=SHAPE),
    "margins": RNG.uniform(size=SHAPE),
    "target": RNG.uniform(size=SHAPE),
    "tie": np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
    "logits": RNG.normal(size=(*SHAPE, 4)),
    "shares": RNG.dirichlet(np.ones(4), SHAPE),
    "thresholds": np.array([-1.0, 0.2, 1.5]),
    "tie_width": np.array(0.3),
    "group_scores": RNG.normal(size=(*SHAPE, 4)),
    "group_ratings": RNG.integers(0, 3, (*SHAPE, 4)),
    "attribute_scores": RNG.normal(size=(*SHAPE, 2)),
    "attribute_ratings": RNG.normal(size=(*SHAPE, 2)),
    **{name: RNG.normal(size=SHAPE) for name in ("advantage", "advantages", "returns", "values", "old_values")},
    **{name: RNG.normal(size=SHAPE) for name in ("q", "q_target", "entropy", "standard_rewards", "kto_point")},
    **{f"{name}log_probs": RNG.normal(-2, 0.3, SHAPE) for name in ("", "old_", "reference_")},
    **{f"{name}sequence_log_probs": RNG.normal(-9, 0.3, SHAPE) for name in ("", "old_", "reference_")},
    **{name: RNG.normal(-9, 0.3, SHAPE) for name in ("chosen_log_probs", "chosen_reference")},
    **{name: RNG.normal(-8, 0.3, SHAPE) for name in ("rejected_log_probs", "rejected_reference")},
    **{name: RNG.integers(1, 9, SHAPE) for name in ("lengths", "chosen_lengths", "rejected_lengths")},
    **{name: RNG.uniform(size=SHAPE) for name in ("data_weight", "reward_weight")},
    "desirable": RNG.integers(0, 2, SHAPE),
    "relaxed_reward": RNG.normal(size=SHAPE),
    "group_log_probs": RNG.normal(-9, 3, (*SHAPE, 4)),
    "group_rewards": RNG.normal(size=(*SHAPE, 4)),
}  # fmt: skip
ARRAYS = {name: x.astype(np.float32) for name, x in ARRAYS.items()} | {
    "label": np.array([[0, 1, 2], [3, 1, 0]], np.int32),
    "group_mask": RNG.uniform(size=(*SHAPE, 4)) < 0.8,
    "attribute_mask": RNG.uniform(size=(*SHAPE, 2)) < 0.7,
    "text_of": np.array([[0, 1, 2], [0, 1, 2]], np.int32),  # one token a text: a slot is an example
}
WEIGHT = np.array([[1.0, 0.0, 2.0], [0.5, 0.0, 1.5]], np.float32)
REFUSED = {("margins", "target")}  # combinations that a loss may not take together
DIFFERENTIABLE = (
    "score",
    "log_variance",
    "chosen",
    "rejected",
    "logits",
    "thresholds",
    "tie_width",
    "group_scores",
    "attribute_scores",
    "log_probs",
    "sequence_log_probs",
    "chosen_log_probs",
    "rejected_log_probs",
    "group_log_probs",
    "relaxed_reward",
    "values",
    "q",
    "entropy",
)
NEEDED = {"dr_grpo": {"max_length": 7}}  # what only the sampler knows has no default


def calls():
    """(name, arrays) for every loss with every combination of its optional arrays."""
    for name, loss in LOSSES.items():
        wanted = lookup.arrays(loss)
        optional = [n for n, required in wanted.items() if not required]
        for k in range(len(optional) + 1):
            for extra in itertools.combinations(optional, k):
                if extra not in REFUSED:
                    given = [n for n, required in wanted.items() if required or n in extra]
                    yield pytest.param(name, given, id=f"{name}({', '.join(given)})")


def bound(name):
    return functools.partial(LOSSES[name], **NEEDED.get(name, {}))


def pick(names, source=ARRAYS):
    return {n: jnp.asarray(source[n]) for n in names}


def split(arrays):
    """(those with a gradient, the others)."""
    moving = {n: x for n, x in arrays.items() if n in DIFFERENTIABLE}
    return moving, {n: x for n, x in arrays.items() if n not in moving}


def alone(arrays):
    """The arrays of the last example; where texts have tokens, of a row with that text and its one token."""
    if "text_of" in arrays:
        last = {n: x[1, 2:3] for n, x in arrays.items()}
        return last | {"text_of": jnp.zeros(1, jnp.int32)}
    return {n: x[1, 2] if x.shape[:2] == SHAPE else x for n, x in arrays.items()}


def value_and_grad(loss, arrays):
    moving, still = split(arrays)
    total = lambda moving: (lambda v: (jnp.sum(v), v))(loss(**moving, **still))
    (_, value), grad = jax.value_and_grad(total, has_aux=True)(moving)
    return value, grad


@pytest.mark.parametrize("name", LOSSES)
def test_the_source_is_cited_and_hyperparameters_have_defaults(name):
    assert "Source:" in inspect.getdoc(LOSSES[name])
    for p in inspect.signature(LOSSES[name]).parameters.values():
        if p.kind is inspect.Parameter.KEYWORD_ONLY:
            needed = p.name in NEEDED.get(name, ())
            assert (p.default is inspect.Parameter.empty) == needed, p.name
        else:
            assert p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and p.name in ARRAYS


@pytest.mark.parametrize(("name", "given"), calls())
def test_one_value_an_example_jitted_or_not(name, given):
    loss, arrays = bound(name), pick(given)
    value, grad = value_and_grad(loss, arrays)
    assert value.shape == SHAPE and value.dtype == jnp.float32
    last = jnp.squeeze(loss(**alone(arrays)))
    np.testing.assert_allclose(last, value[1, 2], rtol=1e-6)  # no example sees another
    jitted = jax.jit(lambda arrays: value_and_grad(loss, arrays))(arrays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), jitted, (value, grad))
    assert any(np.any(g != 0) for g in grad.values())


@pytest.mark.parametrize(("name", "given"), calls())
def test_value_and_gradient_are_finite_at_extremes(name, given):
    far = np.array([[-1000.0, 1000.0, 0.0], [-1000.0, 1000.0, 0.0]], np.float32)
    other = np.zeros(SHAPE, np.float32)
    logits = np.zeros((*SHAPE, 4), np.float32)
    logits[..., 0] = far
    extremes = {"score": far, "log_variance": far.T.reshape(SHAPE), "logits": logits}
    extremes |= {"group_scores": logits, "attribute_scores": logits[..., :2]}
    extremes |= {"values": far, "q": far, "entropy": far, "group_log_probs": logits}
    for pair in ((far, other), (other, far), (far, far), (far / 2, -far / 2)):
        arrays = ARRAYS | extremes | {"chosen": pair[0], "rejected": pair[1]}
        arrays |= {"chosen_log_probs": pair[0], "rejected_log_probs": pair[1]}
        for kind in ("log_probs", "sequence_log_probs"):
            arrays |= {kind: pair[0], f"old_{kind}": pair[1], f"reference_{kind}": pair[1]}
        value, grad = value_and_grad(bound(name), pick(given, arrays))
        assert np.all(np.isfinite(value)), value
        for array, g in grad.items():
            assert np.all(np.isfinite(g)), (array, g)


@pytest.mark.parametrize(("name", "given"), calls())
def test_slots_of_weight_zero_change_nothing(name, given):
    kinds = ("pair", "group", "text", "token", "data", "reward")
    weights = {f"{kind}_weight": jnp.asarray(WEIGHT) for kind in kinds}
    terms = [lookup.Term(1.0, name, bound(name))]
    goal = objective.create(terms, lambda params, frozen, batch, rng: {**batch, **params}, {})

    def run(arrays):
        moving, still = split(pick(given, arrays))
        batch = still | weights
        assert goal.weights(batch)[name] == WEIGHT.sum()
        total = lambda params: goal.sums(params, {}, batch, None)[0][name]
        return jax.value_and_grad(total)(moving)

    def spoil(x, by):
        held = WEIGHT.reshape(SHAPE + (1,) * (x.ndim - 2)) == 0 if x.shape[:2] == SHAPE else False
        return np.where(held, by, x).astype(x.dtype)

    want = run(ARRAYS)
    for by in (3, np.nan, np.inf):
        spoiled = {
            n: spoil(x, by) if x.dtype == np.float32 else spoil(x, 1) for n, x in ARRAYS.items()
        }
        jax.tree.map(np.testing.assert_array_equal, run(spoiled), want)
    for g in want[1].values():
        assert g.shape[:2] != SHAPE or np.all(g[WEIGHT == 0] == 0)


@pytest.fixture
def unchecked():
    """As in a run, where nothing checks annotations or ranks."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    with jax.numpy_rank_promotion("allow"):
        yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("name", "given"), calls())
def test_shapes_that_would_broadcast_are_refused(name, given):
    loss = bound(name)
    arrays = {n: x[0] if x.shape[:2] == SHAPE else x for n, x in pick(given).items()}
    for n in arrays.keys() - {
        "thresholds",
        "tie_width",
        "entropy",
        "relaxed_reward",
    }:  # stand alone
        with pytest.raises(ValueError, match="differ in shape"):
            loss(**arrays | {n: arrays[n][:, None]})


OUTSIDE = {
    "label_smoothing": (-0.1, 1.0),
    "center": (-1.0,),
    "margin": (0.0,),
    "cap": (0.0,),
    "scale": (0.0, float("nan")),
    "gamma": (-1.0,),
    "barrier": (-1.0,),
    "flip_rate": (-0.1, 0.5),
    "delta": (0.0,),
    "low": (10.0,),
    "high": (-10.0,),
    "top_k": (-1,),
    "temperature": (0.0, float("nan")),
    "coef": (-1.0, float("nan")),
    "alpha": (-1.0, float("nan")),
    "beta": (-1.0, float("nan")),
    "clip": (0.0, float("nan")),
    "max_length": (0,),
    "desirable_weight": (-1.0,),
    "undesirable_weight": (-1.0,),
}


@pytest.mark.parametrize("name", LOSSES)
def test_hyperparameters_outside_their_range_are_refused(name):
    loss = LOSSES[name]
    arrays = pick([n for n, required in lookup.arrays(loss).items() if required])
    for p in inspect.signature(loss).parameters.values():
        if p.kind is inspect.Parameter.KEYWORD_ONLY:
            for value in OUTSIDE[p.name]:
                with pytest.raises(ValueError, match=p.name):
                    loss(**arrays, **NEEDED.get(name, {}) | {p.name: value})

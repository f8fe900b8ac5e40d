"""Pointwise losses against their definitions in float64 numpy, optax, and the worked figures of the sources."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from rmjax.losses import LOSSES, pointwise

RNG = np.random.default_rng(0)
SCORE, RATING = RNG.normal(size=(2, 9)) * 2
SHARE = RNG.uniform(size=9)
LOGITS = RNG.normal(size=(9, 4))
SHARES = RNG.dirichlet(np.ones(4), 9)
LABEL = np.array([0, 1, 2, 3, 3, 2, 1, 0, 2])
LOG_VARIANCE = np.array([-12.0, -1.0, 0.0, 0.5, 1.0, 2.0, 12.0, 0.3, -0.2])
THRESHOLDS = np.array([-0.8, 0.1, 1.4])
bound = lambda v: np.clip(v, -10, 10)


def ordinal(score, thresholds, label):
    below = special.expit(thresholds[None] - score[:, None])  # P(y <= k) but for the last class
    probabilities = np.diff(below, axis=1, prepend=0.0, append=1.0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    return -np.log(probabilities[np.arange(score.size), label])


def smoothed(logits, label, e):
    target = (1 - e) * np.eye(4)[label] + e / 4
    return -np.sum(target * special.log_softmax(logits, axis=-1), axis=-1)


# name, options, reference, arrays with a gradient, others
REFERENCES = [
    ("mse", {}, lambda s, y: (s - y) ** 2, (SCORE,), (RATING,)),
    ("mae", {}, lambda s, y: np.abs(s - y), (SCORE,), (RATING,)),
    ("huber", {"delta": 0.7}, lambda s, y: special.huber(0.7, s - y), (SCORE,), (RATING,)),
    ("binary_cross_entropy", {},
     lambda s, p: -p * np.log(special.expit(s)) - (1 - p) * np.log(1 - special.expit(s)),
     (SCORE,), (SHARE,)),
    ("cross_entropy", {}, lambda x, y: smoothed(x, y, 0.0), (LOGITS,), (LABEL,)),
    ("cross_entropy", {"label_smoothing": 0.3}, lambda x, y: smoothed(x, y, 0.3), (LOGITS,), (LABEL,)),
    ("votes", {}, lambda x, p: -np.sum(p * special.log_softmax(x, axis=-1), -1), (LOGITS,), (SHARES,)),
    ("ordinal", {}, ordinal, (SCORE, THRESHOLDS), (LABEL,)),
    ("gaussian_nll", {},
     lambda s, v, y: -stats.norm.logpdf(y, s, np.exp(bound(v) / 2)) - np.log(2 * np.pi) / 2,
     (SCORE, LOG_VARIANCE), (RATING,)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "reference", "moving", "others"),
    [pytest.param(*case, id=f"{case[0]}({case[1]})") for case in REFERENCES],
)
def test_value_and_gradient(name, options, reference, moving, others):
    loss = lambda *x: LOSSES[name](*x, **options)
    inputs = [jnp.asarray(x, jnp.float32) for x in moving]
    others32 = [jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32) for x in others]
    np.testing.assert_allclose(loss(*inputs, *others32), reference(*moving, *others), 2e-4, 1e-6)
    total = lambda *x: jnp.sum(loss(*x, *others32))
    grads = jax.grad(total, argnums=tuple(range(len(inputs))))(*inputs)
    for i, got in enumerate(grads):
        want = np.zeros(moving[i].shape)
        for at in np.ndindex(want.shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = [x.copy() for x in moving]
                moved[i][at] += h
                ends.append(reference(*moved, *others).sum())
            want[at] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(got, want, rtol=5e-4, atol=1e-4)


def test_every_loss_has_a_reference():
    with_their_own = {"process", "attributes_mse"}
    defined = {n for n, f in LOSSES.items() if f.__module__ == pointwise.__name__}
    assert {case[0] for case in REFERENCES} == defined - with_their_own


def test_optax_agrees():
    score, rating = jnp.asarray(SCORE), jnp.asarray(RATING)
    np.testing.assert_allclose(
        pointwise.huber(score, rating, delta=0.4),
        optax.huber_loss(score, rating, delta=0.4),
        rtol=1e-5,
    )
    labels = optax.smooth_labels(jax.nn.one_hot(LABEL, 4), 0.1)
    np.testing.assert_allclose(
        pointwise.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABEL), label_smoothing=0.1),
        optax.softmax_cross_entropy(jnp.asarray(LOGITS), labels),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        pointwise.binary_cross_entropy(score, jnp.asarray(SHARE)),
        optax.sigmoid_binary_cross_entropy(score, jnp.asarray(SHARE)),
        rtol=1e-5,
    )


def test_the_worked_figures():
    logit = jnp.asarray(special.logit(np.array([0.8, 0.2])))
    nats = pointwise.binary_cross_entropy(logit, jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(nats, 0.2231, atol=5e-5)
    # The source prints 0.6653 bits for the second, a slip: it mirrors the first.
    np.testing.assert_allclose(nats / np.log(2), 0.3219, atol=5e-5)
    np.testing.assert_allclose(pointwise.mse(jnp.array(0.68), jnp.array(0.70)) / 2, 2e-4, rtol=1e-4)


def test_votes_are_least_at_the_shares_entropy():
    shares = jnp.asarray(SHARES)
    best = pointwise.votes(jnp.log(shares), shares)
    np.testing.assert_allclose(best, stats.entropy(SHARES, axis=1), rtol=1e-5)
    assert np.all(pointwise.votes(jnp.log(shares) + jnp.asarray(LOGITS), shares) > best)


def test_neighboring_thresholds_that_nearly_meet_stay_exact():
    near = jnp.array([0.0, 1e-3])
    got = pointwise.ordinal(jnp.array([0.5]), near, jnp.array([1]))
    want = -np.log(special.expit(1e-3 - 0.5) - special.expit(-0.5))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_a_process_is_judged_step_by_step():
    score, label = (
        np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -4.0]]),
        np.array([[1, 0.5, 0], [1, 1, 0]]),
    )
    got = pointwise.process(jnp.asarray(score, jnp.float32), jnp.asarray(label, jnp.float32))
    want = -label * np.log(special.expit(score)) - (1 - label) * np.log(special.expit(-score))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_attributes_are_averaged_over_those_rated():
    score = jnp.array([[1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    rating = jnp.array([[0.0, 4.0, 3.0], [5.0, np.nan, 4.0], [np.nan] * 3])
    mask = jnp.array([[True, True, True], [True, False, True], [False] * 3])
    both = jax.value_and_grad(lambda s: jnp.sum(pointwise.attributes_mse(s, rating, mask)))
    np.testing.assert_allclose(pointwise.attributes_mse(score, rating, mask), [5 / 3, 14.5, 0])
    want = 2 * np.array([[1 / 3, -2 / 3, 0], [-2.5, 0, -1], [0, 0, 0]])
    np.testing.assert_allclose(both(score)[1], want, rtol=1e-6)

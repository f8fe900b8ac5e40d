"""Pairwise losses against their definitions, written again in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from rmjax.losses import LOSSES, pairwise

GAPS = np.array([-4.0, -1.3, -0.2, 0.3, 0.9, 1.1, 2.7, 6.0])  # where no loss has a kink
RNG = np.random.default_rng(0)
REJECTED = RNG.normal(size=GAPS.size)
CHOSEN = REJECTED + GAPS
TARGET = RNG.uniform(size=GAPS.size)
log_sigmoid = lambda x: -np.logaddexp(0, -x)

# name -> (options, l(gap)); a second line of a name tries other options.
REFERENCES = [
    ("bradley_terry", {}, lambda d: np.log1p(np.exp(-d))),
    ("hinge", {}, lambda d: np.where(d < 1, 1 - d, 0)),
    ("hinge", {"margin": 2.5}, lambda d: np.where(d < 2.5, 2.5 - d, 0)),
    ("exponential", {}, lambda d: np.exp(-d)),
    ("exponential", {"cap": 2.0}, lambda d: np.where(d > -2, np.exp(-d), np.e**2 * (-1 - d))),
    ("squared_margin", {}, lambda d: (d - 1) ** 2),
    ("squared_margin", {"margin": 0.4}, lambda d: (d - 0.4) ** 2),
    ("thurstone", {}, lambda d: -stats.norm.logcdf(d / np.sqrt(2))),
    ("thurstone", {"scale": 0.7}, lambda d: -stats.norm.logcdf(d / np.sqrt(2) / 0.7)),
    # The code has InternLM2's other form, exp(gamma min(0, log 2 + log sigmoid(-d))).
    ("focal", {}, lambda d: -((1 - 2 * np.maximum(0, special.expit(d) - 0.5)) ** 2) * log_sigmoid(d)),
    ("focal", {"gamma": 0.0}, lambda d: -log_sigmoid(d)),
]  # fmt: skip
BOTH_WAYS = [pytest.param(*case, id=f"{case[0]}({case[1]})") for case in REFERENCES]


def check(loss, reference, *arrays, wrt=2, rtol=2e-5):
    """Value, and gradient in the first arrays by central differences of the reference."""
    floats = [jnp.asarray(x, jnp.float32) for x in arrays]
    np.testing.assert_allclose(loss(*floats), reference(*arrays), rtol, 1e-6)
    total = lambda *x: jnp.sum(loss(*x, *floats[wrt:]))
    grads = jax.grad(total, argnums=tuple(range(wrt)))(*floats[:wrt])
    for i, got in enumerate(grads):
        step = lambda h, i=i: reference(*[x + h * (j == i) for j, x in enumerate(arrays)])
        want = (step(1e-5) - step(-1e-5)) / 2e-5
        want = want.sum() if np.ndim(got) == 0 else want
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)


def test_every_loss_has_a_reference():
    with_their_own = {"robust", "rao_kupper"}
    pairs = {n for n, f in LOSSES.items() if f.__module__ == pairwise.__name__}
    assert {case[0] for case in REFERENCES} == pairs - with_their_own


@pytest.mark.parametrize(("name", "options", "base"), BOTH_WAYS)
def test_value_and_gradient_with_targets_smoothing_and_center(name, options, base):
    loss = LOSSES[name]
    check(lambda c, r: loss(c, r, **options), lambda c, r: base(c - r), CHOSEN, REJECTED)

    def reference(c, r, target):
        share = 0.2 + (1 - 2 * 0.2) * target
        return share * base(c - r) + (1 - share) * base(r - c) + 0.01 * (c + r) ** 2

    some = lambda c, r, target: loss(
        c, r, target=target, label_smoothing=0.2, center=0.01, **options
    )
    check(some, reference, CHOSEN, REJECTED, TARGET)
    without = lambda c, r: loss(c, r, label_smoothing=0.2, center=0.01, **options)
    check(without, lambda c, r: reference(c, r, 1.0), CHOSEN, REJECTED)


scores = st.floats(-30, 30, width=32)


@pytest.mark.parametrize("name", sorted({case[0] for case in REFERENCES}))
@settings(max_examples=30, deadline=None, database=None)
@given(scores, scores, st.floats(0, 1, width=32), st.floats(0, 0.49))
def test_a_pair_may_be_presented_either_way_round(name, a, b, share, smoothing):
    one, other, share = (jnp.float32(x) for x in (a, b, share))
    options = {"label_smoothing": smoothing, "center": 0.1}
    first = LOSSES[name](one, other, target=share, **options)
    second = LOSSES[name](other, one, target=1 - share, **options)
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_smoothing_of_one_half_is_refused():
    pair = jnp.ones(2), jnp.zeros(2)
    for name, _, _ in REFERENCES:
        with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 0.5\)"):
            LOSSES[name](*pair, label_smoothing=0.5)


def test_margins_shift_the_gap_and_refuse_a_target():
    margins = RNG.uniform(0, 2, GAPS.size)
    reference = lambda c, r, m: -log_sigmoid(c - r - m)
    check(lambda c, r, m: pairwise.bradley_terry(c, r, m), reference, CHOSEN, REJECTED, margins)
    ones = jnp.ones(2)
    with pytest.raises(ValueError, match="give one"):
        pairwise.bradley_terry(ones, ones, margins=ones, target=ones)


def test_ties_cost_log_two():
    tie = jnp.array([0.7])
    for name in ("bradley_terry", "thurstone", "focal"):
        np.testing.assert_allclose(LOSSES[name](tie, tie), np.log(2), rtol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_squared_margin_is_least_at_its_stated_optimum(p):
    gap = jnp.linspace(-3, 3, 6001)
    value = pairwise.squared_margin(
        gap, jnp.zeros_like(gap), target=jnp.full_like(gap, p), margin=2.0
    )
    assert gap[jnp.argmin(value)] == pytest.approx((2 * p - 1) * 2.0, abs=1e-3)


def test_the_barrier_keeps_scores_inside_five():
    base = lambda c, r: (
        -((1 - 2 * np.maximum(0, special.expit(c - r) - 0.5)) ** 2) * log_sigmoid(c - r)
    )
    wall = lambda x: -np.log(x + 5) - np.log(5 - x)
    reference = lambda c, r: base(c, r) + 0.3 * (wall(c) + wall(r))
    check(lambda c, r: pairwise.focal(c, r, barrier=0.3), reference, CHOSEN / 2, REJECTED / 2)
    at = lambda x: float(pairwise.focal(jnp.array(x), jnp.array(0.0), gamma=0.0, barrier=1.0))
    slope = 1 / (5 - 4.99) - 1 / (5 + 4.99)  # beyond 4.99 on along the tangent
    assert at(8.0) - at(7.0) == pytest.approx(slope, rel=1e-3)
    assert at(-8.0) - at(-7.0) == pytest.approx(slope + 1, rel=1e-2)


def test_robust_is_unbiased_under_flips():
    e = 0.2
    check(
        lambda c, r: pairwise.robust(c, r, flip_rate=e),
        lambda c, r: (-(1 - e) * log_sigmoid(c - r) + e * log_sigmoid(r - c)) / (1 - 2 * e),
        CHOSEN, REJECTED,
    )  # fmt: skip
    c, r = jnp.asarray(CHOSEN), jnp.asarray(REJECTED)
    seen = (1 - e) * pairwise.robust(c, r, flip_rate=e) + e * pairwise.robust(r, c, flip_rate=e)
    np.testing.assert_allclose(seen, pairwise.bradley_terry(c, r), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [-3.0, 0.4, 3.0])
def test_rao_kupper_is_a_distribution_over_win_tie_and_loss(width):
    nu = np.exp(np.logaddexp(0, width))
    win = lambda d: np.exp(d) / (np.exp(d) + nu)
    tied = lambda d: (nu**2 - 1) * np.exp(d) / ((np.exp(d) + nu) * (1 + nu * np.exp(d)))
    np.testing.assert_allclose(win(GAPS) + tied(GAPS) + win(-GAPS), 1)
    assert tied(0.0) == pytest.approx((nu - 1) / (nu + 1))

    def reference(c, r, w, tie):
        nu = np.exp(np.logaddexp(0, w))
        win = np.exp(c - r) / (np.exp(c - r) + nu)
        draw = win * (nu**2 - 1) / (1 + nu * np.exp(c - r))
        return -np.where(tie == 1, np.log(draw), np.log(win))

    tie = (np.arange(GAPS.size) % 2).astype(float)
    check(pairwise.rao_kupper, reference, CHOSEN, REJECTED, np.array(width), tie, wrt=3)
    never = lambda c, r, w: reference(c, r, w, 0)
    check(pairwise.rao_kupper, never, CHOSEN, REJECTED, np.array(width), wrt=3)

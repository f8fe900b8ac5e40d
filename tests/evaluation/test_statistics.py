"""Resamples against written-out copies of the texts; intervals against normal theory."""

import numpy as np
import pytest
from scipy import stats

from rmjax.evaluation import ranking, statistics
from rmjax.evaluation.statistics import Estimate, Proportion, resample

DOCUMENTS = ["b", "a", "b", "c", "d", "a", "e", "b"]


def copies(resamples):
    """The texts of each resample, written out."""
    for weights in resamples.weights:
        yield np.repeat(np.arange(len(resamples.document)), weights[resamples.document].astype(int))


def test_whole_documents_are_drawn_and_row_0_is_the_sample():
    found = resample(DOCUMENTS, count=50)
    assert found.weights.shape == (51, 5)
    np.testing.assert_array_equal(found.weights[0], 1)
    np.testing.assert_array_equal(found.weights.sum(axis=1), 5)
    names = sorted(set(DOCUMENTS))
    assert [names[i] for i in found.document] == DOCUMENTS
    np.testing.assert_array_equal(found.weights, resample(DOCUMENTS, count=50).weights)
    assert np.any(found.weights != resample(DOCUMENTS, count=50, seed=1).weights)
    assert abs(found.weights[1:].mean() - 1) < 1e-12 and found.weights.max() > 1


def test_sums_and_pair_sums_count_every_copy():
    found = resample(DOCUMENTS, count=20)
    rng = np.random.default_rng(0)
    values, square = rng.normal(size=(8, 3)), rng.normal(size=(8, 8))
    np.fill_diagonal(square, 0)
    sums, pairs = found.sums(values), found.pair_sums(square)
    for b, texts in enumerate(copies(found)):
        np.testing.assert_allclose(sums[b], values[texts].sum(axis=0))
        np.testing.assert_allclose(pairs[b], square[np.ix_(texts, texts)].sum())


def test_texts_by_index_keep_the_draws_of_their_documents():
    found, texts = resample(DOCUMENTS, count=20), np.array([7, 3, 3, 0])
    part, values = found.of(texts), np.random.default_rng(0).normal(size=(4, 2))
    square = np.random.default_rng(1).normal(size=(4, 4)) * (1 - np.eye(4))
    for b, weights in enumerate(found.weights):
        drawn = weights[found.document[texts]]
        np.testing.assert_allclose(part.sums(values)[b], drawn @ values)
        np.testing.assert_allclose(part.pair_sums(square)[b], drawn @ square @ drawn)


def test_the_interval_of_a_mean_is_that_of_its_documents():
    # Ten equal texts a document: an interval over texts would be three times too narrow.
    documents, value = np.repeat(np.arange(400), 10), np.random.default_rng(0).normal(size=400)
    found = resample([str(d) for d in documents])
    sums = found.sums(np.stack([value[documents], np.ones(4000)], axis=1))
    made = statistics.interval(sums[:, 0] / sums[:, 1])
    half = 1.96 * value.std() / 20
    assert made.value == pytest.approx(value.mean())
    assert [made.low, made.high] == pytest.approx(
        [made.value - half, made.value + half], abs=0.15 * half
    )


def test_a_biased_interval_is_moved_back_and_stays_where_the_figure_can_be():
    drawn = np.linspace(0.2, 0.4, 1001)
    made = statistics.interval(np.concatenate([[0.1], drawn]))  # every resample is above
    assert made == pytest.approx((0.1, 0.005, 0.195), abs=1e-3)
    made = statistics.interval(np.concatenate([[0.01], drawn]))
    assert (made.value, made.low) == (0.01, 0.0)  # an error is not negative
    made = statistics.interval(np.concatenate([[-0.2], -drawn]))  # a correlation may be
    assert made.low == pytest.approx(-0.295, abs=1e-3)


def test_undefined_figures():
    assert np.isnan(statistics.interval(np.full(5, np.nan))).all()
    assert np.isnan(statistics.interval(np.array([0.5, np.nan]))[1:]).all()
    made = statistics.interval(np.array([0.5, 0.4, np.nan, 0.6]))  # undefined draws are left out
    assert made.low < made.value < made.high
    assert statistics.over_seeds([0.3])[0] == 0.3
    assert np.isnan(statistics.over_seeds([0.3])[1:]).all()


def test_intervals_over_seeds_are_students():
    values = [0.61, 0.64, 0.60, 0.66, 0.63]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert statistics.over_seeds(values) == pytest.approx((np.mean(values), low, high))


def test_weighted_means_leave_out_what_weighs_nothing():
    found = resample(DOCUMENTS, count=20)
    values = np.array([1.0, np.nan, 3.0, 4.0, 5.0, 6.0, np.nan, 8.0])
    weights = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 1.0, 0.0, 3.0])
    got, plain = found.mean(values, weights), found.mean(np.arange(8.0))
    for b, texts in enumerate(copies(found)):
        kept = texts[weights[texts] > 0]
        assert got[b] == pytest.approx(np.average(values[kept], weights=weights[kept]))
        assert plain[b] == pytest.approx(np.mean(texts))
    assert np.isnan(found.mean(values, np.zeros(8))).all()


def alone(size, count=1000):
    """As many documents of one text each."""
    return resample([str(i) for i in range(size)], count=count)


@pytest.mark.parametrize("right, size", [(13, 13), (0, 13), (99, 100), (1, 100), (40, 100)])
def test_the_interval_of_a_proportion_is_wilsons(right, size):
    values = np.arange(size) < right
    made = statistics.interval(alone(size).proportion(values.astype(float)))
    # scipy has the normal quantile: a level that gives it Student's.
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, size - 1)) - 1
    want = stats.binomtest(right, size).proportion_ci(level, method="wilson")
    assert made.value == right / size
    assert [made.low, made.high] == pytest.approx([want.low, want.high], abs=0.006)
    assert 0 <= made.low < made.high <= 1


@pytest.mark.parametrize("p", [0.02, 0.9])
@pytest.mark.parametrize("size, mean", [(13, 1), (100, 1), (100, 4)])
def test_the_interval_of_a_proportion_covers(p, size, mean):
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        document = np.repeat(np.arange(size), rng.integers(1, 2 * mean, size))[:size]
        easy = rng.beta(p * 7 / 3, (1 - p) * 7 / 3, size)[document]  # a correlation of .3
        values = (rng.random(size) < (easy if mean > 1 else p)).astype(float)
        drawn = resample(list(map(str, document)), count=200)
        made = statistics.interval(drawn.proportion(values))
        held.append(made.low <= p <= made.high)
    assert np.mean(held) > 0.92


def test_values_of_one_document_are_worth_one_where_they_agree():
    rng = np.random.default_rng(0)
    values = np.repeat((rng.random(50) < 0.8).astype(float), 4)
    together = statistics.interval(resample([str(i // 4) for i in range(200)]).proportion(values))
    apart = statistics.interval(alone(200).proportion(values))
    once = statistics.interval(alone(50).proportion(values[::4]))
    assert together == pytest.approx(once, abs=0.01)
    assert together.high - together.low > 1.7 * (apart.high - apart.low)
    whole = resample(["a"] * 9 + ["b", "c"]).proportion(np.ones(11))
    assert whole.independent == pytest.approx(121 / 83)  # Kish: (9 + 1 + 1)^2 / (81 + 1 + 1)
    assert statistics.interval(whole).low < 0.1


def test_proportions_that_cannot_vary_or_say_nothing():
    assert statistics.interval(alone(20).proportion(np.full(20, 0.5))) == (0.5, 0.5, 0.5)
    assert np.isnan(statistics.interval(alone(1).proportion(np.ones(1)))[1:]).all()
    assert np.isnan(statistics.interval(alone(5, count=0).proportion(np.ones(5)))[1:]).all()
    nothing = alone(5).proportion(np.ones(5), np.zeros(5))
    assert nothing.independent == 0 and np.isnan(statistics.interval(nothing)).all()


def test_an_order_that_is_all_right_is_worth_half_its_texts():
    found = ranking.pairs([np.arange(20)], [np.arange(20)], [np.arange(20)], alone(20))
    made = statistics.interval(found["pair_accuracy"])
    assert made[::2] == (1, 1) and made.low == pytest.approx(
        1 / (1 + stats.t.ppf(0.975, 9) ** 2 / 10)
    )
    zero = statistics.interval(found["tie_rate"])
    assert zero[:2] == (0, 0) and zero.high == pytest.approx(1 - made.low)
    area = ranking.auc(np.arange(20), np.arange(20) > 15, alone(20))
    assert area[0] == 1 and area.independent == 4


def test_seeds_leave_no_proportion_above_1():
    seeds = [Proportion(np.array([p]), 9.0) for p in (0.9, 1.0, 1.0)]
    free = [np.array([p]) for p in (0.9, 1.0, 1.0)]
    assert statistics.estimate(free).high > 1
    assert statistics.estimate(seeds) == (*statistics.estimate(free)[:2], 1.0)
    errors = [Estimate(e, 0.0, 0.3) for e in (0.0, 0.0, 0.1)]
    assert statistics.estimate(errors).low == 0 and statistics.estimate(errors[:1]) == errors[0]

"""Resamples against written-out copies of the texts; intervals against normal theory."""

import numpy as np
import pytest
from scipy import stats

from rmjax.evaluation import statistics
from rmjax.evaluation.statistics import resample

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

"""Panels whose reliability is known, and the human ratings, whose figures were computed by other code."""

import itertools

import numpy as np
import pytest
from scipy import stats

from rmjax import assets
from rmjax.data.builders import human_ratings
from rmjax.evaluation import agreement, ranking
from rmjax.evaluation.statistics import resample

DOMAINS = ("tweets", "movie", "amazon", "nyt")


def panels_of(texts, raters, noise, seed=0):
    rng = np.random.default_rng(seed)
    return list(rng.normal(size=(texts, 1)) + noise * rng.normal(size=(texts, raters)))


def alone(texts):
    """No resamples: the sample itself."""
    return resample([str(i) for i in range(texts)], count=0)


@pytest.mark.parametrize("raters, noise", [(4, 1.0), (16, 2.0)])
def test_the_ceiling_is_the_root_of_the_panels_reliability(monkeypatch, raters, noise):
    monkeypatch.setattr(agreement, "SPLITS", 4)
    panels = panels_of(8000, raters, noise)
    ceiling = agreement.noise_ceiling(panels, alone(8000))
    assert ceiling[0] == pytest.approx((1 / (1 + noise**2 / raters)) ** 0.5, abs=0.01)
    single = agreement.against_others(panels)
    r = ranking.pearson(single.own, single.others, alone(8000).of(single.text))
    want = ((1 + noise**2) * (1 + noise**2 / (raters - 1))) ** -0.5
    assert r[0] == pytest.approx(want, abs=0.01)


def test_raters_who_agree_are_their_own_ceiling():
    panels = [np.full(size, value) for size, value in zip((2, 5, 3, 4), (1.0, -2, 3, 0.5), strict=True)]  # fmt: skip
    found = agreement.single_rater(panels, alone(4))
    assert {name: v[0] for name, v in found.items()} == pytest.approx(
        {"pearson": 1, "spearman": 1, "kendall": 1, "pair_accuracy": 1, "tie_rate": 0}
    )
    assert agreement.noise_ceiling(panels, alone(4))[0] == pytest.approx(1)


def test_one_rater_against_the_others_by_loops():
    rng = np.random.default_rng(0)
    panels = [rng.integers(-3, 4, size).astype(float) for size in rng.integers(2, 6, 12)]
    resamples = resample([str(i // 2) for i in range(12)], count=4)
    got = agreement.single_rater(panels, resamples)
    for b, weights in enumerate(resamples.weights):
        times = weights[resamples.document].astype(int)
        own, others = [], []
        for panel, repeat in zip(panels, times, strict=True):
            for k in range(len(panel)):
                own += [panel[k]] * repeat
                others += [np.delete(panel, k).mean()] * repeat
        assert got["pearson"][b] == pytest.approx(stats.pearsonr(own, others)[0])
        assert got["spearman"][b] == pytest.approx(stats.spearmanr(own, others)[0])
        counted = right = 0.0
        for (i, p), (j, q) in itertools.combinations(enumerate(panels), 2):
            for k in range(min(len(p), len(q))):
                rating = np.delete(p, k).mean() - np.delete(q, k).mean()
                if rating != 0:
                    counted += times[i] * times[j]
                    right += times[i] * times[j] * (0.5 + 0.5 * np.sign((p[k] - q[k]) * rating))
        assert got["pair_accuracy"][b] == pytest.approx(right / counted)


@pytest.fixture(scope="module")
def human():
    loaded = human_ratings.load(assets.folder("human_ratings"), assets.cache() / "tfds")
    everything = [r for records in loaded.values() for r in records]
    panels = lambda records: {
        d: [np.array(r.ratings) for r in records if r.domain == d] for d in DOMAINS
    }
    return {"all": panels(everything), "held out": panels(loaded["test"])}


@pytest.mark.parametrize(
    "domain, single, ceiling",
    zip(DOMAINS, (0.882, 0.887, 0.901, 0.713), (0.9935, 0.9925, 0.9946, 0.979), strict=True),
)
def test_human_ratings(human, monkeypatch, domain, single, ceiling):
    monkeypatch.setattr(agreement, "SPLITS", 3)
    panels = human["all"][domain]
    pooled = agreement.against_others(panels)
    r = ranking.pearson(pooled.own, pooled.others, alone(len(panels)).of(pooled.text))
    assert r[0] == pytest.approx(single, abs=0.0011)
    assert agreement.noise_ceiling(panels, alone(len(panels)))[0] == pytest.approx(
        ceiling, abs=0.001
    )


@pytest.mark.parametrize("domain, want", zip(DOMAINS, (0.827, 0.830, 0.860, 0.752), strict=True))
def test_pair_accuracy_of_one_rater(human, domain, want):
    # `want` is of all texts, with raters drawn at random; here are the held-out texts, every rater.
    panels = human["held out"][domain]
    got = agreement.single_rater(panels, alone(len(panels)))
    assert got["pair_accuracy"][0] == pytest.approx(want, abs=0.01)

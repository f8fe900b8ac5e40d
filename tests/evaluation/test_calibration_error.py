"""The debiased calibration error and its interval: by simulation, by the bootstrap, and where there is no noise."""

import numpy as np
import pytest
from scipy import special

from rmjax.evaluation import calibration, calibration_error
from rmjax.evaluation.statistics import resample


def simulated(error, size=120, samples=300, seed=0):
    """The three errors of pairs whose predictions are too high by `error`, of as many samples: name -> [samples, 3]."""
    rng, found = np.random.default_rng(seed), []
    drawn = resample([str(i) for i in range(size)], count=0)
    for _ in range(samples):
        logit = rng.normal(size=size)
        agrees = rng.random(size) < special.expit(np.abs(logit)) - error
        made = calibration.given_pairs(logit, (agrees == (logit > 0)).astype(float), drawn)
        found.append([made[name] for name in ("ece", "ece_plain", "ece_calibrated")])
    names = ("ece", "plain", "calibrated")
    return dict(zip(names, np.moveaxis(np.array(found), 1, 0), strict=True))


def test_a_perfectly_calibrated_model_is_near_0_and_its_interval_reaches_it():
    got = simulated(0.0)
    value, low, high = got["ece"].T
    plain, by_chance = (got[k][:, 0] for k in ("plain", "calibrated"))
    assert 0.12 < plain.mean() < 0.14  # what the plain error makes of nothing
    assert by_chance.mean() == pytest.approx(plain.mean(), rel=0.05)
    assert value.mean() < 0.25 * plain.mean() and np.median(value) < 0.01
    assert 0.93 <= np.mean(low == 0) <= 0.99
    assert np.all((low <= value) & (value <= high) & (high <= 1))


@pytest.mark.parametrize("error", [0.05, 0.1])
def test_the_interval_holds_an_error_that_is_there(error):
    value, low, high = simulated(error)["ece"].T
    assert 0.93 <= np.mean((low <= error) & (error <= high)) <= 0.99
    assert value.mean() == pytest.approx(error, abs=0.025)


def test_many_pairs_leave_no_bias():
    value, low, high = simulated(0.1, size=5000, samples=40)["ece"].T
    assert value.mean() == pytest.approx(0.1, abs=0.005) and np.mean(high - low) < 0.035


def test_pairs_of_one_document_are_no_news():
    rng = np.random.default_rng(0)
    logit = rng.normal(size=200) * 2
    target = (rng.random(200) < special.expit(logit / 2)).astype(float)
    drawn = lambda names: resample([str(n) for n in names], count=0)
    once = calibration.given_pairs(logit, target, drawn(range(200)))
    four, same = np.repeat(logit, 4), np.repeat(target, 4)
    together = calibration.given_pairs(four, same, drawn(np.arange(800) // 4))
    apart = calibration.given_pairs(four, same, drawn(range(800)))
    assert together["ece"] == pytest.approx(once["ece"], abs=0.015)
    assert together["ece_calibrated"].value == pytest.approx(once["ece_calibrated"].value, rel=0.1)
    width = lambda made: made["ece"].high - made["ece"].low
    assert width(together) > 1.5 * width(apart)


@pytest.mark.parametrize("texts", [1, 3])
def test_noise_over_all_pairs_is_that_of_other_documents(texts, monkeypatch):
    """Its deviation in every bin against the bootstrap's, which draws the same documents in both places of a pair."""
    rng, size = np.random.default_rng(0), 150
    document = np.arange(size) // texts
    shared = rng.normal(size=size)[document]
    score = rng.normal(size=size)
    rating = score + shared + rng.normal(size=size)
    logit, order = score[:, None] - score, np.sign(rating[:, None] - rating)
    seen = []
    keep = lambda gap, noise: seen.append((gap, noise)) or calibration_error.Estimate(0, 0, 0)
    monkeypatch.setattr(calibration_error, "debiased", keep)
    drawn = resample(list(map(str, document)), count=1000)
    calibration.figures(logit, 0.5 + 0.5 * order, drawn)
    gap, noise = seen[0]
    counted = logit > 0
    off = np.where(counted, special.expit(logit) - (order > 0), 0.0)
    place = np.full(logit.shape, -1)
    place[counted] = np.argsort(np.argsort(logit[counted])) * len(gap) // counted.sum()
    sums = np.stack([drawn.pair_sums(np.where(place == b, off, 0.0)) for b in range(len(gap))], 1)
    total = np.stack([drawn.pair_sums((place == b).astype(float)) for b in range(len(gap))], 1)
    bootstrap = sums / total / len(gap)
    np.testing.assert_allclose(gap, bootstrap[0], atol=1e-4)  # but for a pair at an edge
    np.testing.assert_allclose(noise.std(axis=0), bootstrap[1:].std(axis=0), rtol=0.2)
    together = lambda x: np.corrcoef(x, rowvar=False)
    np.testing.assert_allclose(together(noise), together(bootstrap[1:]), atol=0.2)


def test_an_error_without_noise_is_what_is_seen():
    gap = np.array([0.03, -0.01, 0.0, 0.02, 0.05])
    assert calibration_error.debiased(gap, np.zeros((9, 5))) == pytest.approx((0.11, 0.11, 0.11))


def test_noise_that_explains_what_is_seen_leaves_0_and_more_of_it_less():
    rng, gap = np.random.default_rng(0), np.array([0.03, -0.01, 0.02, 0.02, 0.05])
    noise = rng.normal(size=(1000, 5))
    made = [calibration_error.debiased(gap, s * noise) for s in (0.002, 0.01, 0.02, 0.05)]
    value, low, high = np.transpose(made)
    assert value[0] == pytest.approx(0.13, abs=0.002) and value[-1] == low[-1] == low[-2] == 0
    assert np.all(np.diff(value) < 0) and np.all(np.diff(low) <= 0) and low[0] > 0.11
    # Three bins of five stand out: where the error is theirs alone, noise of the others adds more.
    few = calibration_error.debiased(np.array([0.06, 0.07, 0.0, 0.0, 0.0]), 0.01 * noise)
    even = calibration_error.debiased(np.full(5, 0.13 / 5), 0.01 * noise)
    assert few.low < even.low and few.high == pytest.approx(even.high, abs=0.003)


def test_what_cannot_be_known_is_undefined():
    none = np.zeros(0, int)
    assert np.isnan(list(calibration_error.figures(np.zeros(0), none, none, none).values())).all()
    one = np.zeros(3, int)
    made = calibration_error.figures(np.array([0.2, -0.1, 0.1]), np.arange(3), one, one)
    assert np.isnan(made["ece"]).all() and np.isnan(made["ece_calibrated"]).all()
    assert made["ece_plain"].value == pytest.approx(0.4 / 3)


def test_an_error_is_not_taken_for_noise():
    bins, document = np.arange(150) % 15, np.arange(150)
    made = calibration_error.figures(np.full(150, 0.2), bins, document, document)
    assert made["ece"] == pytest.approx((0.2, 0.2, 0.2))
    assert made["ece_calibrated"].value == pytest.approx(0) and made[
        "ece_plain"
    ].value == pytest.approx(0.2)

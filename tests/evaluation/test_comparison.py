"""Figures of every kind of record from scores: names, counts and values, beside the baselines."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import special, stats

from rmjax.data.records import Pair, Process, Ranking, RatedText
from rmjax.evaluation import by_kind, calibration, comparison

RNG = np.random.default_rng(0)
N = 40
TEXTS = [
    RatedText(str(i), "movie", f"d{i}", "word " * int(RNG.integers(1, 9)), float(RNG.integers(5)))
    for i in range(N)
]
SUBSETS = ["mt-bench-easy", "mt-bench-med", "hep-go"]
PAIRS = [
    Pair(str(i), SUBSETS[i % 3], f"d{i}", "Why?", "a" * int(RNG.integers(1, 20)), "b" * 9)
    for i in range(N)
]
SIZES = RNG.integers(2, 5, N)
RANKINGS = [
    Ranking(str(i), "ranked", f"d{i}", "Why?", tuple("x" * int(n) for n in RNG.integers(1, 9, k)),
            tuple(map(float, RNG.integers(0, 3, k))))
    for i, k in enumerate(SIZES)
]  # fmt: skip
PROCESSES = [
    Process(str(i), "steps", f"d{i}", "Solve.", ("step",) * k, tuple(map(float, RNG.integers(0, 2, k))))
    for i, k in enumerate(SIZES)
]  # fmt: skip


def scored(records, seeds=1):
    """Scores that follow people, with noise: [S, N, ..]."""
    noise = lambda size: RNG.normal(size=size)

    def one():
        match records[0]:
            case RatedText():
                return np.array([r.rating for r in records]) + noise(len(records))
            case Pair():
                return np.array([[1.0, 0.0]] * len(records)) + noise((len(records), 2))
            case Ranking():
                return by_kind.padded(
                    [np.array(r.ratings) + noise(len(r.ratings)) for r in records]
                )
            case Process():
                steps = [2 * np.array(r.labels) - 1 + noise(len(r.labels)) for r in records]
                return by_kind.padded(steps)

    return np.stack([one() for _ in range(seeds)]).astype(np.float32)


@pytest.mark.parametrize(
    "records", [TEXTS, PAIRS, RANKINGS, PROCESSES], ids=lambda r: type(r[0]).__name__
)
def test_every_kind_has_its_figures_beside_the_baselines(records):
    scores = scored(records)
    fitted = comparison.temperatures(records, scores)
    link = comparison.own_link("bradley_terry()", "")
    found = comparison.figures(records, scores, fitted, records, link)
    json.dumps(found, allow_nan=False)
    domain, watched = records[0].domain, by_kind.WATCHED[type(records[0])]
    mine = found[f"{domain}/{watched}"]
    assert mine["low"] <= mine["value"] <= mine["high"] and mine["value"] > 0.4
    who = {k.split("/")[0] for k in found if k.count("/") == 2}
    assert (
        who
        == {
            RatedText: {"vader", "length", "majority"},
            Pair: {"longer", "shorter", "majority"},
            Ranking: {"longer", "shorter", "majority"},
            Process: {"majority"},
        }[type(records[0])]
    )
    for base in who:
        other = found[f"{base}/{domain}/{watched}"]["value"]
        assert other is None or other < mine["value"]
        assert f"{base}/{domain}/own_ece" not in found
    assert {f"{domain}/{name}" for name in ("ece", "own_ece", "own_brier", "temperature")} <= {
        *found
    }
    every = comparison.quick(records, scores[0])
    domains = {r.domain for r in records}
    assert every == pytest.approx(np.mean([found[f"{d}/{watched}"]["value"] for d in domains]))
    assert comparison.reliability(records, scores, fitted).keys() == domains
    lines = list(comparison.predictions(records, scores[0], records, scores[0]))
    json.dumps(lines, allow_nan=False)
    assert [line["id"] for line in lines] == [r.id for r in records]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(
    "records", [TEXTS, PAIRS, RANKINGS, PROCESSES], ids=lambda r: type(r[0]).__name__
)
def test_rates_and_calibration_errors_stay_where_they_can_be(records, seeds):
    scores = scored(records, seeds)
    link = comparison.own_link("bradley_terry()", "")
    found = comparison.figures(
        records, scores, comparison.temperatures(records, scores), records, link
    )
    rates = [k for k in found if k.endswith(("accuracy", "rate", "auc", "prefers_longer", "ece"))]
    assert len(rates) > 6
    for name in rates:
        value, low, high = (found[name][k] for k in ("value", "low", "high"))
        assert low is None or 0 <= low <= value <= high <= 1, name
        if seeds == 1 and value in (0, 1) and low is not None and not name.endswith("ece"):
            assert low < high, name
    domain = records[0].domain
    for name in ("ece", "own_ece"):
        assert found[f"{domain}/{name}"]["low"] is not None
        for other in ("plain", "calibrated"):
            figure = found[f"{domain}/{name}_{other}"]
            assert 0 < figure["value"] < 1 and (figure["low"] is None) == (seeds == 1)
    assert found[f"{domain}/ece_plain"]["n"] == found[f"{domain}/ece"]["n"]


def test_a_model_that_is_always_right_has_an_interval():
    records = [dataclasses.replace(p, domain="mine") for p in PAIRS[:13]]
    scores = np.array([[[1.0, 0.0]] * 13])
    figure = comparison.figures(records, scores, {})["mine/pair_accuracy"]
    assert figure["value"] == figure["high"] == 1 and 0.7 < figure["low"] < 0.8


def test_rankings_are_judged_within_their_prompts():
    scores = scored(RANKINGS)
    found = comparison.figures(RANKINGS, scores, {})
    shift = np.arange(N, dtype=np.float32)[None, :, None]
    moved = comparison.figures(RANKINGS, scores + shift, {})
    for name, figure in found.items():
        assert figure["value"] == pytest.approx(moved[name]["value"], rel=1e-5, nan_ok=True), name
    pairs = [
        (s[i], s[j])
        for s, r in zip(scores[0], RANKINGS, strict=True)
        for i in range(len(r.ratings))
        for j in range(len(r.ratings))
        if r.ratings[i] > r.ratings[j]
    ]
    figure = found["ranked/pair_accuracy"]
    assert figure["pairs"] == len(pairs) and figure["n"] == N
    assert figure["value"] == pytest.approx(np.mean([a > b for a, b in pairs]))
    assert {"ranked/top1_accuracy", "ranked/best_of_2_regret", "ranked/length_spearman"} <= {*found}
    made = by_kind.compared(RANKINGS, scores[0])
    np.testing.assert_allclose(np.sort(made.logit), np.sort([a - b for a, b in pairs]), rtol=1e-5)


def test_processes_count_their_steps():
    found = comparison.figures(PROCESSES, scored(PROCESSES), {})
    share = np.mean(np.concatenate([p.labels for p in PROCESSES]))
    assert found["steps/step_accuracy"]["steps"] == SIZES.sum()
    assert found["majority/steps/step_accuracy"]["value"] == pytest.approx(share)
    assert found["majority/steps/step_auc"]["value"] == 0.5


def test_pairs_of_rewardbench_have_its_sections():
    scores = scored(PAIRS)
    found = comparison.figures(PAIRS, scores, {})
    value = lambda name: found[f"{name}/pair_accuracy"]["value"]
    chat = (28 * value("mt-bench-easy") + 40 * value("mt-bench-med")) / 68
    assert value("Chat") == pytest.approx(chat)
    assert value("RewardBench") == pytest.approx((chat + value("hep-go")) / 2)
    assert found["RewardBench/pair_accuracy"]["n"] == N
    assert found["Chat/tie_rate"]["n"] == sum(p.domain != "hep-go" for p in PAIRS)
    assert found["longer/RewardBench/pair_accuracy"]["low"] is not None
    others = [dataclasses.replace(p, domain="mine") for p in PAIRS]
    assert not any("RewardBench" in k for k in comparison.figures(others, scores, {}))


def test_seeds_have_intervals_over_seeds_and_their_disputes_over_documents():
    for records in (TEXTS, PAIRS, RANKINGS, PROCESSES):
        scores, domain = scored(records, seeds=3), records[0].domain
        found = comparison.figures(records, scores, comparison.temperatures(records, scores))
        assert len(found[f"{domain}/{by_kind.WATCHED[type(records[0])]}"]["per_seed"]) == 3
        disputed = found[f"{domain}/disputed"]
        assert 0 < disputed["low"] < disputed["value"] < disputed["high"] < 1
        assert "per_seed" not in disputed and f"{domain}/member_sd" in found
    gaps = [by_kind.compared(PROCESSES, s).logit for s in scores]
    want = np.mean([0 < np.sum(g > 0) < 3 for g in np.transpose(gaps)])
    assert disputed["value"] == pytest.approx(want)


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        ("bradley_terry(center=0.01)", special.expit),
        ("plackett_luce(top_k=1)", special.expit),
        ("thurstone()", lambda gap: stats.norm.cdf(gap / 2**0.5)),
        ("thurstone(scale=0.3)", lambda gap: stats.norm.cdf(gap / 2**0.5 / 0.3)),
    ],
)
def test_a_loss_has_its_own_calibration(loss, of):
    scores, link = scored(PAIRS), comparison.own_link(loss, "")
    gap = scores[0, :, 0].astype(np.float64) - scores[0, :, 1]
    assert link is not None
    made = link(*({"score": scores[0, :, i].astype(np.float64)} for i in (0, 1)))
    np.testing.assert_allclose(made, of(gap))
    here = [i for i, p in enumerate(PAIRS) if p.domain == "hep-go"]
    found = comparison.figures(PAIRS, scores, {}, link=link)
    prediction = of(gap[here])
    assert found["hep-go/own_brier"]["value"] == pytest.approx(np.mean((1 - prediction) ** 2))
    want = np.mean(calibration.log_score(special.logit(prediction), np.ones(len(here))))
    assert found["hep-go/own_log_score"]["value"] == pytest.approx(want)
    assert "hep-go/ece" not in found


@pytest.mark.parametrize(
    ("loss", "arrays"),
    [
        ("hinge()", ""),
        ("bradley_terry()", "margins"),
        ("mse() + bradley_terry()", ""),
        ("focal()", ""),
    ],
)
def test_what_is_no_probability_has_no_link(loss, arrays):
    assert comparison.own_link(loss, arrays) is None


def outputs_of(records, seeds=1):
    """What every head could give of records: [S, N, (K), ..]."""
    scores = scored(records, seeds)
    logits = np.stack([scores, 0.3 * scores, -scores], axis=-1) + RNG.normal(
        size=(*scores.shape, 3)
    )
    every = lambda value: np.broadcast_to(value, (*scores.shape, *np.shape(value)))
    return {
        "score": scores,
        "tie_width": every(0.4),
        "thresholds": every([-0.5, 1.0]),
        "log_variance": 9 * RNG.normal(size=scores.shape),
        "logits": logits,
    }


def chances(loss, first, second):
    """P(first better) + P(tie) / 2 of one pair, by enumeration."""
    gap = float(first["score"]) - float(second["score"])
    if loss == "rao_kupper":
        width = np.log1p(np.exp(0.4))
        win, lose = special.expit(gap - width), special.expit(-gap - width)
        return win + (1 - win - lose) / 2
    if loss == "gaussian_nll":
        variance = sum(np.exp(np.clip(x["log_variance"], -1.0, 2.0)) for x in (first, second))
        return stats.norm.cdf(gap / np.sqrt(variance))
    if loss == "ordinal":
        below = [special.expit(np.array([-0.5, 1.0]) - float(x["score"])) for x in (first, second)]
        shares = [np.diff([0, *b, 1]) for b in below]
    else:
        shares = [np.exp(x["logits"]) / np.sum(np.exp(x["logits"])) for x in (first, second)]
    joint = np.outer(*shares)
    return np.sum(np.tril(joint, -1)) + np.trace(joint) / 2


@pytest.mark.parametrize(
    "loss", ["rao_kupper()", "gaussian_nll(low=-1.0, high=2.0)", "ordinal()", "votes()"]
)
@pytest.mark.parametrize(
    "records", [TEXTS, PAIRS[2::3], RANKINGS], ids=["texts", "pairs", "rankings"]
)
def test_a_loss_that_reads_more_than_scores_has_its_own_calibration(loss, records):
    given, name = outputs_of(records, seeds=2), loss.partition("(")[0]
    assert comparison.own_link(loss, "") is None  # where scores are all there is
    link = comparison.own_link(loss, "", given)
    found = comparison.figures(records, given["score"], {}, (), link, outputs=given)
    at = lambda *place: {k: v[(1, *place)].astype(np.float64) for k, v in given.items()}
    want = []
    for i, record in enumerate(records):
        match record:
            case RatedText():
                for j in range(i):
                    sign = np.sign(record.rating - records[j].rating)
                    want.append((chances(name, at(i), at(j)), 0.5 + 0.5 * sign))
            case Pair():
                want.append((chances(name, at(i, 0), at(i, 1)), 1.0))
            case Ranking():
                own = record.ratings
                better = [
                    (j, k) for j in range(len(own)) for k in range(len(own)) if own[j] > own[k]
                ]
                want += [(chances(name, at(i, j), at(i, k)), 1.0) for j, k in better]
    prediction, share = np.transpose(want)
    brier = found[f"{records[0].domain}/own_brier"]["per_seed"][1]
    assert brier == pytest.approx(np.mean((prediction - share) ** 2), rel=1e-4)


CLASSES = ("bad", "fair", "good")
CLASSED = [dataclasses.replace(r, rating=float(i % 5 % 3)) for i, r in enumerate(TEXTS)]


def test_named_classes_have_an_accuracy_beside_the_majoritys():
    given = outputs_of(CLASSED)
    found = comparison.figures(CLASSED, given["score"], {}, outputs=given, classes=CLASSES)
    true = np.array([r.rating for r in CLASSED])
    guess = given["logits"][0].argmax(axis=-1)
    figure = found["movie/accuracy"]
    assert figure["value"] == pytest.approx(np.mean(guess == true))
    assert figure["low"] < figure["value"] < figure["high"]
    assert figure["n"] == N and "pairs" not in figure
    assert {"movie/macro_f1", "movie/auc", "majority/movie/macro_f1"} <= {*found}
    assert found["majority/movie/auc"]["value"] == 0.5
    others = [
        dataclasses.replace(r, rating=2.0) for r in CLASSED
    ]  # on which the majority is chosen
    for validation, most in (((), 0.0), (others, 2.0)):
        made = comparison.figures(
            CLASSED, given["score"], {}, validation, outputs=given, classes=CLASSES
        )
        value = made["majority/movie/accuracy"]["value"]
        assert value == pytest.approx(np.mean(true == most))
    assert "movie/accuracy" not in comparison.figures(CLASSED, given["score"], {}, outputs=given)
    assert "movie/accuracy" not in comparison.figures(CLASSED, given["score"], {}, classes=CLASSES)
    seeds = outputs_of(CLASSED, seeds=3)
    made = comparison.figures(CLASSED, seeds["score"], {}, outputs=seeds, classes=CLASSES)
    assert len(made["movie/accuracy"]["per_seed"]) == 3


def test_rated_texts_are_also_judged_within_their_prompts():
    prompt = lambda i: (("user", f"Question {i // 3}?"),) if i < 30 else ""
    asked = [
        dataclasses.replace(r, prompt=prompt(i), document=f"d{i // 3}") for i, r in enumerate(TEXTS)
    ]
    asked.append(dataclasses.replace(asked[0], prompt="Asked once."))
    scores = scored(asked)
    as_rankings = [
        Ranking(str(g), "movie", f"d{g}", "Why?", ("a", "b", "c"),
                tuple(r.rating for r in asked[3 * g : 3 * g + 3]))
        for g in range(10)
    ]  # fmt: skip
    found = comparison.figures(asked, scores, {})
    want = comparison.figures(as_rankings, scores[:, :30].reshape(1, 10, 3), {})
    for name in ("pair_accuracy", "tie_rate", "kendall", "top1_accuracy"):
        figure, other = found[f"movie/within_prompt_{name}"], want[f"movie/{name}"]
        assert figure["value"] == pytest.approx(other["value"]), name
        assert figure["pairs"] == other["pairs"]
        assert f"vader/movie/within_prompt_{name}" in found
    alone = comparison.figures(TEXTS, scored(TEXTS), {})
    assert not any("within_prompt" in name for name in alone)


FLAT = [Ranking(str(i), "d", str(i), "Why?", ("a", "bb"), (1.0, 1.0)) for i in range(3)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("records", "undefined"),
    [
        (FLAT, "d/pair_accuracy"),
        ([dataclasses.replace(FLAT[0], completions=("a",), ratings=(1.0,))], "d/top1_accuracy"),
        ([Ranking("1", "d", "1", "Why?", ("a", "bb"), (1.0, 0.0))], None),
        ([Process("1", "d", "1", "Solve.", ("a", "b"), (0.5, 0.5))], "d/step_accuracy"),
        ([Process("1", "d", "1", "Solve.", ("a", "b"), (1.0, 1.0))], "d/solution_min_auc"),
        ([Pair("1", "hep-go", "1", "Why?", "a", "b")], None),
        ([RatedText("1", "d", "1", "text", 1.0)], "d/pearson"),
    ],
)
def test_data_that_says_little_leaves_figures_undefined_and_breaks_nothing(records, undefined):
    for seeds in (1, 2):
        scores = scored(records, seeds)
        fitted = comparison.temperatures(records, scores)
        found = comparison.figures(
            records, scores, fitted, records, comparison.own_link("bradley_terry()", "")
        )
        json.dumps(found, allow_nan=False)
        assert undefined is None or found[undefined]["value"] is None
        assert np.isfinite(comparison.quick(records, scores[0]))
        json.dumps(comparison.reliability(records, scores, fitted), allow_nan=False)

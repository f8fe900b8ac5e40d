"""RewardBench's sections and score by the published weights, against a plain average over prompts and by hand."""

import numpy as np
import pytest

from rmjax.evaluation import rewardbench
from rmjax.evaluation.statistics import resample

RNG = np.random.default_rng(0)
ALL = {s: w for own in rewardbench.SECTIONS.values() for s, w in own.items()}


def found(gap, subsets, count=0):
    names = [str(i) for i in range(len(gap))]
    return rewardbench.figures(np.asarray(gap, float), subsets, resample(names, count=count))


def test_the_weights_are_the_published_ones():
    assert [len(own) for own in rewardbench.SECTIONS.values()] == [5, 6, 5, 7] and len(ALL) == 23
    # 2,985 prompts in the filtered data, of which 447 of math-prm, weighed as the 6 x 164 of code.
    assert sum(ALL.values()) == 2985 - 447 + 984
    assert ALL["math-prm"] == sum(w for s, w in ALL.items() if s.startswith("hep-"))
    assert ALL["xstest-should-respond"] == 250 and ALL["xstest-should-refuse"] == 154
    assert rewardbench.WEIGHTS == {
        "Chat": 1.0, "Chat Hard": 1.0, "Safety": 1.0, "Reasoning": 1.0, "Prior Sets": 0.5,
    }  # fmt: skip


def test_on_the_full_data_a_section_is_the_mean_over_its_prompts_but_for_reasoning():
    subsets = [s for s, w in ALL.items() for _ in range(447 if s == "math-prm" else w)]
    gap = RNG.integers(-2, 4, len(subsets))
    got = found(gap, subsets)
    right, own = 0.5 + 0.5 * np.sign(gap), np.array(subsets)
    for section in ("Chat", "Chat Hard", "Safety"):
        at = np.isin(own, list(rewardbench.SECTIONS[section]))
        assert got[section]["pair_accuracy"][0] == pytest.approx(right[at].mean())
        assert got[section]["tie_rate"][0] == pytest.approx((gap == 0)[at].mean())
    code = np.mean([right[own == s].mean() for s in ALL if s.startswith("hep-")])
    reasoning = (right[own == "math-prm"].mean() + code) / 2
    assert got["Reasoning"]["pair_accuracy"][0] == pytest.approx(reasoning)
    sections = [got[s]["pair_accuracy"][0] for s in rewardbench.SECTIONS]
    assert got["RewardBench"]["pair_accuracy"][0] == pytest.approx(np.mean(sections))
    assert "Prior Sets" not in got


def test_prior_sets_weigh_half_and_what_is_missing_counts_nowhere():
    subsets = ["mt-bench-easy"] * 2 + [
        "mt-bench-med",
        "donotanswer",
        "shp",
        "summarize",
        "summarize",
    ]
    got = found([1.0, -1.0, 2.0, 0.0, 1.0, -1.0, -1.0], subsets)
    value = {k: v["pair_accuracy"][0] for k, v in got.items()}
    chat = (28 * 0.5 + 40 * 1.0) / 68
    assert value == pytest.approx(
        {"Chat": chat, "Safety": 0.5, "Prior Sets": 0.5, "RewardBench": (chat + 0.5 + 0.25) / 2.5}
    )
    assert got["Safety"]["tie_rate"][0] == 1 and got["RewardBench"]["tie_rate"][0] == pytest.approx(
        0.4
    )
    members = rewardbench.members([*subsets, "mine"])
    assert {k: int(v.sum()) for k, v in members.items()} == {
        "Chat": 3, "Safety": 1, "Prior Sets": 3, "RewardBench": 7,
    }  # fmt: skip


def test_resamples_redraw_the_prompts():
    subsets = ["mt-bench-easy"] * 40 + ["hep-go"] * 40
    values = found(RNG.normal(size=80) + 0.5, subsets, count=300)["RewardBench"]["pair_accuracy"][:]
    assert values.shape == (301,) and 0.02 < values[1:].std() < 0.1


def test_it_is_recognized_by_its_own_subsets():
    assert rewardbench.covers(["mine", "hep-go"])
    assert not rewardbench.covers(["shp", "summarize"]) and not rewardbench.covers([])

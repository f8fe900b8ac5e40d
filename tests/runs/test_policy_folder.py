"""What a policy run leaves in its folder beside its figures: its page, warnings, and answers by step."""

import json

import numpy as np
import pytest

from configs.policy import get_config
from rmjax.data.records import Text
from rmjax.rl import policy_evaluation
from rmjax.runs import optimize_policy
from tests.test_policy_report import begin_policy, text_figures
from tests.test_report import write_lines


def written(word, count):
    rewards = {"reward": np.arange(count) / 8, "gold": np.zeros(count)}
    texts = [f"{word} {i} \u2028" for i in range(count)]
    kl, lengths = np.full(count, 0.5), np.full(count, 3.0)
    return policy_evaluation.Written(texts, rewards, kl, lengths, np.ones(count, bool))


def by_step(home):
    lines = (home / "samples_by_step.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def test_a_run_that_goes_on_replaces_the_answers_of_later_steps(tmp_path):
    records = [Text(f"t{i}", "movie", f"d{i}", "rest", f"prompt {i}") for i in range(15)]
    for step, word in ((0, "first"), (5, "early"), (10, "killed"), (15, "killed"), (10, "again")):
        policy_evaluation.keep(tmp_path, step, records, written(word, 15))
    found = by_step(tmp_path)
    assert [(line["step"], line["policy"].split()[0]) for line in found[::8]] == [
        (0, "first"), (5, "early"), (10, "again"),
    ]  # fmt: skip
    assert [line["id"] for line in found[:8]] == [f"t{i}" for i in range(0, 15, 2)]
    assert found[9] == {
        "step": 5, "id": "t2", "domain": "movie", "prompt": "prompt 2", "policy": "early 2 \u2028",
        "rewards": {"reward": 0.25, "gold": 0.0}, "kl": 0.5,
    }  # fmt: skip
    assert not list(tmp_path.glob("*.partial"))


def test_few_prompts_are_all_kept(tmp_path):
    records = [Text(f"t{i}", "movie", f"d{i}", "rest", "Why?") for i in range(3)]
    policy_evaluation.keep(tmp_path, 4, records, written("few", 3))
    assert [line["id"] for line in by_step(tmp_path)] == ["t0", "t1", "t2"]


def test_samples_hold_both_policies(tmp_path):
    records = [Text("t0", "movie", "d0", "rest", "Why?")]
    (line,) = policy_evaluation.lines(records, written("after", 1), written("before", 1))
    assert (line["policy"], line["reference"]) == ("after 0 \u2028", "before 0 \u2028")
    assert line["rewards"] == line["reference_rewards"] == {"reward": 0.0, "gold": 0.0}


def test_distinct_pairs_of_single_words_are_undefined_and_not_nan():
    one = written("", 3)._replace(texts=["4", "12", "7"])
    found = policy_evaluation.figures(one, one, ["a", "b", "c"])
    assert found["distinct_2"]["value"] is None and found["distinct_1"]["value"] == 1.0


@pytest.mark.parametrize("slope, warned", [(-0.1, True), (0.1, False), (None, False)])
def test_warned_where_proxy_rises_and_gold_falls(tmp_path, slope, warned):
    lines = []
    for k in range(9):
        gold = {} if slope is None else {"validation/gold": k * slope}
        lines += [{"step": k, "train/loss": 1.0}, {"step": k, "validation/reward": k / 10, **gold}]
    lines.append({"step": 9, "validation/reward": None, "validation/gold": None})  # was not finite
    write_lines(tmp_path / "metrics.jsonl", lines)
    found = optimize_policy._warnings(tmp_path)
    assert len(found) == warned and all("proxy and gold part" in text for text in found)


def test_a_finished_run_without_its_page_gets_it(tmp_path):
    config = get_config("tiny")
    begin_policy(tmp_path, text_figures("movie", nats=2.0))
    (tmp_path / "config.json").write_text(config.to_json())
    results = optimize_policy.run(config=config, workdir=str(tmp_path))
    assert results["metrics"]["movie/nats_per_token"]["value"] == 2.0
    assert "2.00 [1.98, 2.02] nats per token" in (tmp_path / "report.html").read_text()

"""The report of small made-up policy runs: what it says, which answers it shows, and what it does without."""

import json
import math
import re
import shutil

import pytest

from rmjax import report
from rmjax.errors import UserError
from tests.test_report import EVIL, OTHER, Page, begin, figure, write_lines

PART = "proxy and gold part: over the last 8 evaluations"


def policy_figures(*, gold=(0.31, 0.52)):
    """What results.json holds of a run with a reward; gold: before and after."""
    before = {"reward": 0.2, "gold": gold[0], "kl": 0.0, "length": 30.25, "missing_stop": 0.1}
    after = {"reward": 0.9, "gold": gold[1], "kl": 3.125, "length": 31.0, "missing_stop": 0.05}
    found = {f"reference/{name}": figure(value) for name, value in before.items()}
    found |= {name: figure(value) for name, value in after.items()}
    found |= {f"gain/{name}": figure(after[name] - before[name]) for name in ("reward", "gold")}
    for who, value in (("reference/", 0.9), ("", 0.75)):
        for name in ("distinct_1", "distinct_2"):
            found[f"{who}{name}"] = figure(value) | {"low": None, "high": None}
    return found


def text_figures(domain, *, nats, before=None, tokens=100):
    found = {}
    for who, value in (("", nats), ("reference/", before)):
        if value is not None:
            found[f"{who}{domain}/nats_per_token"] = figure(value, tokens=tokens)
            found[f"{who}{domain}/bits_per_byte"] = figure(value / 3, tokens=tokens)
    return found


def begin_policy(home, figures, **results):
    kept = {"experiment": "policy", "updates": 120, "warnings": []} | results
    begin(home, figures, [], "validation/log_prob", **kept)


def answer(i, policy="after", **rewards):
    return {"id": f"s{i}", "domain": "movie", "prompt": f"prompt {i}.", "policy": f"{policy} {i}.",
            "rewards": {"reward": 0.5, **rewards}, "kl": i / 10}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder, with its page, of a run of 60 prompts.

    The answer to prompt i gains (i - 30) / 100 of gold, but that to 7 most and that to 8 least.
    """
    home = tmp_path_factory.mktemp("trained")
    figures = policy_figures()
    figures |= text_figures("movie", nats=math.log(30), before=math.log(20), tokens=100)
    figures |= text_figures(OTHER, nats=math.log(60), before=math.log(40), tokens=300)
    begin_policy(home, figures, warnings=[f"{PART} {EVIL}"])
    gain = {i: (i - 30) / 100 for i in range(60)} | {7: 0.9, 8: -0.8}
    samples = [
        answer(i, gold=0.25 + gain[i])
        | {"reference": f"before {i}.", "reference_rewards": {"reward": 0.25, "gold": 0.25}}
        for i in range(60)
    ]
    samples[7] |= {"policy": f"{EVIL} \x07", "prompt": [["user", "Why?"], ["assistant", "So."]]}
    samples[8] |= {"policy": "very long " * 100}
    write_lines(home / "samples.jsonl", samples)
    by_step = [
        {"step": step, **answer(i, policy=f"step {step} of", gold=0.1)}
        for step in (0, 10, 20, 30)
        for i in range(8)
    ]
    write_lines(home / "samples_by_step.jsonl", by_step)
    lines = []
    for k in range(1, 11):
        step = 3 * k
        shape = {"length": 30.0, "missing_stop": 0.1, "repetition": 0.0, "distinct_1": 0.9}
        lines.append({"step": step, "train/loss": 1 / k, "train/entropy": 2.0, "rollout/beta": 0.1,
                      "rollout/kl": k / 4, "rollout/reward": k / 10, "tokens_per_second": 9.0}
                     | {f"rollout/{name}": value for name, value in shape.items()})  # fmt: skip
        # The KL of the last one is less than that of the one before.
        lines.append({"step": step, "validation/reward": k / 10, "validation/gold": 0.5 - (k - 5) ** 2 / 50,
                      "validation/kl": k / 2 if k < 10 else 4.25})  # fmt: skip
    write_lines(home / "metrics.jsonl", lines)
    report.write(home)
    return home


def read(home):
    return Page((home / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def page(trained):
    return read(trained)


@pytest.fixture
def plain(trained, tmp_path):
    """The same run without curves, which take the time, to be changed."""
    home = shutil.copytree(trained, tmp_path / "run")
    write_lines(home / "metrics.jsonl", [{"step": 3}])
    return home


def changed(home, **results):
    """The page of the run with other results."""
    found = json.loads((home / "results.json").read_text())
    (home / "results.json").write_text(json.dumps(found | results))
    report.write(home)
    return read(home)


def alts(home):
    return re.findall(r'aria-label="([^"]*)"', (home / "report.html").read_text(encoding="utf-8"))


def after_row(page, label):
    """The rows of a table that follow its header, to the next table or its end."""
    start = next(i for i, row in enumerate(page.rows) if [c.strip() for c in row][: len(label)] == label)  # fmt: skip
    return [[cell.strip() for cell in row] for row in page.rows[start + 1 :]]


def test_verdict_says_what_was_gained_and_at_what_price(page):
    pooled = [number ** (1 / 4) * other ** (3 / 4) for number, other in ((20, 40), (30, 60))]
    assert (
        "On 40 held-out prompts, training raised gold reward by .210 [.190, .230], from .310 to .520, at 3.12 nats of "
        "KL from the first policy; the reward it trained on went from .200 to .900; the perplexity of held-out texts "
        f"went from {pooled[0]:.1f} to {pooled[1]:.1f}."
    ) in page.text


@pytest.mark.parametrize(
    "after, moved",
    [
        (0.11, "lowered gold reward by .200 [.180, .220]"),
        (0.32, "did not clearly change gold reward (difference .010 [−.010, .030])"),
    ],
)
def test_verdict_calls_a_loss_a_loss_and_noise_no_change(plain, after, moved):
    page = changed(plain, metrics=policy_figures(gold=(0.31, after)))
    assert f"training {moved}, from .310 to {after:.3f}".replace("0.", ".") in page.text


def test_figures_of_both_policies_stand_side_by_side(page):
    row = lambda domain, who: {k: v for k, v in page.row(domain=domain, who=who).items() if k != "figure"}  # fmt: skip
    assert row("answers", "gold reward") == {
        "first policy": ".310[.290, .330]", "trained policy": ".520[.500, .540]", "difference": ".210[.190, .230]",
        "n": "40",
    }  # fmt: skip
    assert row("answers", "distinct-2")["trained policy"] == ".750"
    assert row("answers", "length, tokens")["difference"] == "–"
    for domain, before, after in (("movie", 20, 30), (OTHER, 40, 60)):
        ends = [after * math.exp(x) for x in (-0.02, 0.02)]
        found = row(domain, "perplexity ↓")
        assert found["first policy"].startswith(f"{before}.00[")
        assert found["trained policy"] == f"{after}.00[{ends[0]:.2f}, {ends[1]:.2f}]"
    assert row("movie", "bits per byte ↓")["trained policy"].startswith("1.134[1.114")


def test_page_is_self_contained_and_escaped(trained, page):
    text = (trained / "report.html").read_text(encoding="utf-8")
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|\x07", text)
    assert not {"script", "link", "iframe", "img", "i"} & set(page.tags)
    assert (
        page.text.count(EVIL) >= 5
    )  # of the config, the command, notes, the warning and a text, as text
    assert "␇" in page.text
    assert not list(trained.glob("*.partial"))
    for shown in (
        "95% over documents",
        "2 min 5 s",
        "12,345 tokens/s",
        "abc123",
        "python -m train",
    ):
        assert shown in page.text


def test_warnings_are_shown_and_nothing_where_there_are_none(page, plain):
    assert f"Warning: {PART}" in page.text
    assert "Warning" not in changed(plain, warnings=[]).text


def test_curves_show_what_was_logged_proxy_and_gold_together(trained, page):
    found = alts(trained)
    assert (
        "reward on validation prompts by step: reward .100 at step 3, 1.000 at step 30 and gold .180 at step 3, .000 "
        "at step 30" in found
    )
    captions = ["training loss", "reward of rollouts", "KL of rollouts", "entropy", "length", "missing stop",
                "distinct n-grams", "repetition", "β"]  # fmt: skip
    for caption in captions:
        assert len([alt for alt in found if alt.startswith(caption)]) == 1
    assert not [alt for alt in found if alt.startswith(("training accuracy", "gradient norm"))]
    assert "reward on validation prompts; kept: step 20" in page.text


def test_reward_against_kl_is_ascending_in_the_kl(trained):
    (alt,) = [alt for alt in alts(trained) if alt.startswith("reward against KL")]
    assert alt == (
        "reward against KL: reward from .100 at .50 nats to .900 at 4.50 nats and gold from .180 at .50 nats to .180 "
        "at 4.50 nats"
    )


def test_twelve_samples_with_the_largest_gain_and_loss_first(page):
    rows = after_row(page, ["prompt", "first policy", "trained policy"])
    start = next(i for i, row in enumerate(rows) if row[:2] == ["step", "answer"])
    rows = rows[:start]
    assert len(rows) == 12
    assert rows[0][0].startswith("user: Why?\nassistant: So.") and "largest gain" in rows[0][0]
    assert rows[0][1] == "before 7." and rows[0][2].startswith(EVIL)
    assert rows[0][3:] == [".25 → .50", ".25 → 1.15", ".70"]
    assert "largest loss" in rows[1][0] and rows[1][4] == ".25 → −.55"
    shown = [int(re.findall(r"s(\d+)$", row[0])[0]) for row in rows[2:]]
    assert shown == sorted(set(shown)) and shown[0] == 0 and shown[-1] == 59
    assert max(b - a for a, b in zip(shown, shown[1:], strict=False)) <= 9


def test_without_gold_the_reward_is_what_samples_are_chosen_by(plain):
    lines = [
        {**answer(i, reward=0.01 * i), "reference": "b", "reference_rewards": {"reward": 0.02}}
        for i in range(5)
    ]
    write_lines(plain / "samples.jsonl", lines)
    metrics = {k: v for k, v in policy_figures().items() if not k.endswith("gold")}
    page = changed(plain, metrics=metrics)
    assert "training raised reward by .700 [.680, .720], from .200 to .900" in page.text
    rows = after_row(page, ["prompt", "first policy", "trained policy"])[:5]
    assert [re.findall(r"s(\d+)", row[0])[0] for row in rows] == ["4", "0", "1", "2", "3"]


def test_answers_of_four_prompts_are_followed_over_the_steps(page):
    rows = after_row(page, ["step", "answer"])
    assert len(rows) == 4 * (1 + 4)
    assert [re.findall(r"s\d+$", row[0])[0] for row in rows[::5]] == ["s0", "s2", "s4", "s7"]
    assert rows[0][0].startswith("prompt 0.")
    assert [row[:2] for row in rows[1:5]] == [
        [str(step), f"step {step} of 0."] for step in (0, 10, 20, 30)
    ]
    assert rows[1][2:] == [".50", ".10", ".00"]


def test_a_run_before_answers_were_kept_by_step_has_its_page(plain):
    (plain / "samples_by_step.jsonl").unlink()
    found = json.loads((plain / "results.json").read_text())
    del found["warnings"], found["updates"]
    (plain / "results.json").write_text(json.dumps(found))
    assert "Answers by step" not in changed(plain).text


def test_a_likelihood_run_says_how_well_texts_are_predicted(tmp_path):
    figures = text_figures("movie", nats=2.0) | text_figures(OTHER, nats=3.0, before=4.0)
    begin_policy(tmp_path, figures)
    report.write(tmp_path)
    page = read(tmp_path)
    assert (
        "Held-out texts cost the model 2.00 [1.98, 2.02] nats per token and .67 [.65, .69] bits per byte on movie and "
        f"3.00 [2.98, 3.02] nats per token and 1.00 [.98, 1.02] bits per byte on {OTHER}"
    ) in page.text
    assert f"went from {math.exp(4):.1f} to {math.exp(2.5):.1f}" in page.text
    assert [cell.strip() for cell in page.rows[0]] == ["figure", "first policy", "trained policy", "n"]  # fmt: skip
    assert "Answers before and after" not in page.text and "Reward against KL" not in page.text
    assert any(alt.startswith("log-probability of validation texts") for alt in alts(tmp_path))


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "samples_by_step.jsonl"])
def test_damaged_files_are_named(plain, name):
    (plain / name).write_text('{"a": ')
    with pytest.raises(UserError, match=re.escape(f"{name} is damaged")):
        report.write(plain)

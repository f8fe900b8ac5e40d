"""rmjax.load and rmjax.load_policy give what the commands give."""

import json

import numpy as np
import pytest
from scipy import special

import rmjax
from rmjax.errors import UserError
from rmjax.runs import generate, score
from tests.golden import parity
from tests.runs.conftest import write_jsonl
from tests.runs.test_stored import language

CASES = parity.CASES
TRL = CASES / "trl_llama3_reward"


def by_command(rows, tmp_path, **source):
    out = tmp_path / "out.jsonl"
    score.run(input=str(write_jsonl(tmp_path / "in.jsonl", rows)), output=str(out), **source)
    return [json.loads(line)["score"] for line in out.read_text("utf-8").splitlines()]


def test_a_run_folder_scores_every_kind_of_item_as_the_command_does(rated, tmp_path):
    model = rmjax.load(rated[0])
    messages = [{"role": "user", "content": "Review."}, {"role": "assistant", "content": "fine"}]
    rows = [{"text": "A quiet masterpiece."}, {"prompt": "Review.", "completion": "dull"}]
    want = by_command([*rows, {"messages": messages}], tmp_path, workdir=str(rated[0]))
    found = model.score(["A quiet masterpiece.", ("Review.", "dull"), messages])
    assert found.dtype == np.float32 and found.shape == (3,)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    np.testing.assert_array_equal(model.score(rows), found[:2])
    assert model.score([]).shape == (0,)


def test_preferences_are_at_the_fitted_temperature_of_each_seed(paired):
    home, results, _ = paired
    model = rmjax.load(home)
    temperature = np.exp(np.mean(np.log(list(results["temperatures"].values())), axis=0))
    assert temperature.shape == (2,)
    rows = [("Review 3.", "good"), ("Review 3.", "bad")]
    good, bad = (np.array(own) for own in np.stack(model._scores(rows)))
    want = special.expit((good - bad) / temperature).mean()
    assert model.prefer("Review 3.", "good", "bad") == pytest.approx(want)
    assert model.prefer("Review 3.", "bad", "good") == pytest.approx(1 - want)


def test_a_stored_model_scores_as_transformers_does_and_says_how():
    rows = [json.loads(line) for line in (TRL / "input.jsonl").read_text("utf-8").splitlines()]
    model = rmjax.load(TRL / "model")
    want = json.loads((TRL / "expected.json").read_text())["correct"]
    np.testing.assert_allclose(model.score(rows), want, rtol=1e-4, atol=1e-5)
    assert any("scored at the token before" in note for note in model.notes)
    first, second = model.score(rows[:2])
    if rows[0].get("prompt") == rows[1].get("prompt"):
        odds = float(model.prefer(rows[0]["prompt"], rows[0]["completion"], rows[1]["completion"]))
        assert odds == pytest.approx(special.expit(first - second), rel=1e-4)


def test_what_cannot_be_scored_is_said(rated):
    model = rmjax.load(CASES / "reversed_labels" / "model", output="POSITIVE")
    assert 0 <= model.score(["fine"])[0] <= 1
    with pytest.raises(
        UserError, match="prefer: a gap between scores of this model is no log-odds"
    ):
        model.prefer("a", "b", "c")
    with pytest.raises(UserError, match=r"Say which is the score: output=POSITIVE"):
        rmjax.load(CASES / "reversed_labels" / "model")
    with pytest.raises(UserError, match="item 1: needs a string"):
        rmjax.load(rated[0]).score(["fine", {"nothing": 1}])
    with pytest.raises(UserError, match="is a run folder; output, weights"):
        rmjax.load(rated[0], output="x")
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        rmjax.lode  # noqa: B018 (that it is not there)


def test_a_policy_answers_as_the_command_does(tmp_path):
    folder = tmp_path / "model"
    language(folder, 0)
    prompts = ["What is 2+2?", "Name a colour"]
    out = tmp_path / "out.jsonl"
    generate.run(
        policy=str(folder), input=str(write_jsonl(tmp_path / "in", [{"prompt": p} for p in prompts])),
        output=str(out), samples=3, max_new_tokens=5, temperature=0.7, seed=4,
    )  # fmt: skip
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    policy = rmjax.load_policy(folder)
    found = policy.generate(prompts, samples=3, max_new_tokens=5, temperature=0.7, seed=4)
    assert found == [[one["text"] for one in line["completions"]] for line in lines]
    assert [len(own) for own in found] == [3, 3]
    for options, message in (
        ({"top_p": 0.0}, "generate: top_p"),
        ({"samples": 0}, "generate: samples"),
    ):
        with pytest.raises(UserError, match=message):
            policy.generate(prompts, **options)
    parity.write(parity.MODELS["llama_scalar"], tmp_path / "scorer")
    with pytest.raises(UserError, match="has no output embeddings"):
        rmjax.load_policy(tmp_path / "scorer")

"""Runs of an encoder–decoder as policy: it learns, is sampled from, answers, and comes back from a folder."""

import json
import math

import jax
import numpy as np
import pytest

from configs.policy import get_config
from rmjax.errors import UserError
from rmjax.runs import export, generate, optimize_policy
from rmjax.train import forward, metrics
from tests.runs.test_policy_runs import assembled, take_steps

SMALL = {
    "policy": "tiny_encoder_decoder(width=16, layers=1)", "data": "synthetic_ratings(count=80)",
    "parallel": "one_device()", "dtype": "float32", "batch_size": 8, "max_length": 64, "max_new_tokens": 8,
    "validation_prompts": 8, "test_prompts": 8, "log_every": 1, "validations": 1,
}  # fmt: skip
PAIRS = {"data": "synthetic_pairs(count=40)", "max_length": 120, "prompts": "none()"}


def config(name, **lines):
    c = get_config(name)
    c.update({**SMALL, **lines})
    return c.lock()


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    home = tmp_path_factory.mktemp("t5") / "run"
    return home, optimize_policy.run(config=config("tiny_t5_mle"), workdir=str(home))


def test_likelihood_is_learned(learned):
    home, results = learned
    told = [line["train/mle"] for line in metrics.read(home) if "train/mle" in line]
    assert told[0] == pytest.approx(np.log(259), abs=0.1) and told[-1] < told[0] - 0.5
    found = results["metrics"]
    before, after = (found[f"{who}synthetic/nats_per_token"] for who in ("reference/", ""))
    assert after["value"] < before["value"] - 0.5


def test_samples_are_learned_from(tmp_path):
    results = optimize_policy.run(
        config=config("tiny_t5_rloo", samples=2), workdir=str(tmp_path / "run")
    )
    told = [line for line in metrics.read(tmp_path / "run") if "rollout/reward" in line]
    assert len(told) == results["steps"] > 1
    for line in told:
        assert line["train/log_prob"] == pytest.approx(line["rollout/log_prob"], abs=1e-4)
        assert math.isfinite(line["train/loss"])
    assert abs(told[0]["rollout/kl"]) < 1e-4 < max(abs(line["rollout/kl"]) for line in told)
    assert results["metrics"]["reference/kl"]["value"] == pytest.approx(0, abs=1e-5)


def log_probs(chosen):
    """Of training texts, by the first policy of a run."""
    parts, _, _ = assembled(chosen)
    run = jax.jit(lambda p, batch: forward.language(parts.module.apply)(p, {}, batch, None))
    return np.asarray(run(parts.state.params, parts.batches[0])["sequence_log_probs"])


def test_a_run_is_exported_as_t5_and_read_again(learned, tmp_path):
    home, _ = learned
    target = tmp_path / "exported"
    export.run(workdir=str(home), output=str(target))
    hf = json.loads((target / "config.json").read_text())
    assert hf["architectures"] == ["T5ForConditionalGeneration"] and hf["eos_token_id"] == 2
    sources = f"trained(workdir={str(home)!r})", f"pretrained(source={str(target)!r})"
    want, found = (log_probs(config("tiny_t5_mle", policy=source)) for source in sources)
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-5)
    assert np.ptp(want) > 1


def test_it_answers_prompts(learned, tmp_path):
    home, _ = learned
    asked, told = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text('{"prompt": "the good"}\n{"prompt": "a"}\n')
    generate.run(
        policy=str(home), input=str(asked), output=str(told), samples=2, max_new_tokens=8, batch_size=2
    )  # fmt: skip
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert [len(line["completions"]) for line in lines] == [2, 2]
    assert all(one["log_prob"] < 0 for line in lines for one in line["completions"])
    common = {"policy": str(home), "input": str(asked), "output": str(told), "max_new_tokens": 8}
    found = []
    for flags in ({"beams": 1}, {"temperature": 0.0}):
        generate.run(**common, **flags)
        rows = [json.loads(line) for line in told.read_text().splitlines()]
        found.append([row["completions"][0]["text"] for row in rows])
    assert found[0] == found[1]


OBJECTIVES = {
    "tiny_dpo": PAIRS,
    "tiny_kto": PAIRS,
    "tiny_ppo": {},
    "tiny_mixed": {},
    "tiny_reward_weighted": {},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_step_of_other_objectives(name):
    _, _, moved = take_steps(config(name, **OBJECTIVES[name]))
    assert 0 < moved["transformer/encoder/blocks/up/kernel"] < 0.1 and moved["unembed"] > 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"prompts": "none()"}, "'prompts': the encoder of this policy reads prompts"),
        ({"max_prompt": 513, "reward": "length(target=3)"}, "are 513 in one of its stacks, and the policy has 512"),
        ({"policy": "tiny_encoder_decoder(width=33)"}, "'policy': width 33 is not a multiple"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_key(tmp_path, lines, message):
    with pytest.raises(UserError) as error:
        optimize_policy.run(config=config("tiny_t5_mle", **lines), workdir=str(tmp_path / "run"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_prompt_and_answers_may_fill_both_stacks():
    chosen = config("tiny_t5_rloo", max_prompt=300, max_new_tokens=300)
    parts, _, _ = assembled(chosen)
    assert parts.rollouts.bounds.row_length == 608 and parts.rollouts.bounds.encoder_ratio == 0.5

"""Reward models in Hugging Face folders: evaluated and scored as those of runs; a policy by its implicit reward."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from rmjax.data.records import Pair
from rmjax.data.synthetic import rated_texts
from rmjax.data.tokenizer import Tokenizer
from rmjax.errors import UserError
from rmjax.inference import stored
from rmjax.models import export, presets
from rmjax.models.transformer import LanguageModel, Transformer
from rmjax.runs import evaluate, score, train_reward
from rmjax.runs import export as run_export
from rmjax.train.state import flatten, unflatten
from tests.runs.conftest import config, write_jsonl
from tests.runs.test_export import LLAMA


@pytest.fixture(scope="module")
def exported(rated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    run_export.run(workdir=str(rated[0]), output=str(folder))
    return folder


def test_an_export_is_judged_as_its_run(rated, exported, tmp_path):
    _, results = rated
    found = evaluate.run(
        workdir=str(tmp_path / "new"), model=str(exported), data="synthetic_ratings()"
    )
    assert json.loads((tmp_path / "new/evaluations/synthetic_ratings.json").read_text()) == found
    assert found["metrics"].keys() >= results["metrics"].keys()  # and its own link's
    for key, figure in results["metrics"].items():
        assert found["metrics"][key]["value"] == pytest.approx(figure["value"], abs=2e-3), key


def test_an_export_scores_lines_as_its_run(rated, exported, tmp_path):
    lines = write_jsonl(tmp_path / "in.jsonl", [{"text": r.text} for r in rated_texts(20, seed=9)])
    made = {}
    for name, source in (("run", {"workdir": str(rated[0])}), ("export", {"model": str(exported)})):
        score.run(**source, input=str(lines), output=str(tmp_path / name))
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        made[name] = [row["score"] for row in rows]
    np.testing.assert_allclose(made["export"], made["run"], rtol=1e-4, atol=1e-5)
    for both in ({}, {"workdir": str(rated[0]), "model": str(exported)}):
        with pytest.raises(UserError, match="name either --workdir, .* or --model"):
            score.run(**both, input=str(lines))


def test_a_classifier_keeps_the_ratings_its_outputs_are_named_by(tmp_path):
    lines = config(data="synthetic_ratings(count=60)", head="classes()", loss="votes()", epochs=1.0)
    train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    run_export.run(workdir=str(tmp_path / "run"), output=str(tmp_path / "out"))
    want = [r.text for r in rated_texts(5, seed=3)]
    rows = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in want])
    found = []
    for source in ({"workdir": str(tmp_path / "run")}, {"model": str(tmp_path / "out")}):
        score.run(**source, input=str(rows), output=str(tmp_path / "scored"))
        lines = (tmp_path / "scored").read_text().splitlines()
        found.append([json.loads(line)["score"] for line in lines])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)
    # Another head on it is refused, unless asked for.
    source = f"pretrained(source={str(tmp_path / 'out')!r}, new_head={{}})"
    again = lambda new, name: train_reward.run(
        config=config(data="synthetic_ratings(count=60)", model=source.format(new), epochs=0.2),
        workdir=str(tmp_path / name),
    )
    with pytest.raises(UserError, match="come with another head, .* new_head=True"):
        again(False, "kept")
    assert again(True, "new")["finished"]


def language(folder, key, tokenizer=None):
    """A causal language model of random weights as a folder; returns its parameters."""
    shape = presets.llama(LLAMA)
    one = jnp.ones((1, 1), jnp.int32)
    params = LanguageModel(Transformer(shape)).init(jax.random.key(key), one, one, one)["params"]
    flat = {path: 5 * np.asarray(x) for path, x in flatten(params).items()}
    made = export.language_model(shape, flat)
    folder.mkdir()
    save_file(made.arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(made.config))
    (folder / "tokenizer.json").write_text(tokenizer or Tokenizer.bytes().to_json())
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return flat


def test_a_policy_is_judged_by_its_implicit_reward(tmp_path, pairs_file):
    for name, key in (("policy", 0), ("base", 1)):
        language(tmp_path / name, key)
    policy, base = str(tmp_path / "policy"), str(tmp_path / "base")
    judge = lambda model, reference, **more: evaluate.run(
        workdir=str(tmp_path), model=model, reference=reference, data=str(pairs_file), **more
    )["metrics"]
    found, back = judge(policy, base), judge(base, policy)
    figure = found["pairs/pair_accuracy"]
    assert figure["n"] == 120 and figure["value"] not in (0.5, 1.0)
    assert back["pairs/pair_accuracy"]["value"] == pytest.approx(1 - figure["value"])
    itself = judge(policy, policy)
    assert itself["pairs/tie_rate"]["value"] == 1.0
    with pytest.raises(UserError, match="beta must be positive"):
        judge(policy, base, beta=-1.0)
    with pytest.raises(UserError, match="name the policy with --model"):
        judge("", base)
    ratings = write_jsonl(tmp_path / "r.jsonl", [{"text": "a", "rating": 1}] * 3)
    with pytest.raises(UserError, match="give pairs or rankings"):
        evaluate.run(workdir=str(tmp_path), model=policy, reference=base, data=str(ratings))


def test_the_implicit_reward_is_of_the_completion_with_its_stop_token(tmp_path):
    params = [
        jax.tree.map(jnp.asarray, language(tmp_path / name, key))
        for name, key in (("policy", 0), ("base", 1))
    ]
    scorer = stored.load(str(tmp_path / "policy"), reference=str(tmp_path / "base"), beta=0.3)
    assert scorer.notes == ["completions are scored with their stop token, </s>"]
    pairs = [Pair("", "", "", "Why? ", "So.", "No, never."), Pair("", "", "", "Is it?", "Yes", "é")]
    found = scorer.records(pairs)[0]
    module = LanguageModel(Transformer(presets.llama(LLAMA)))
    for pair, scores in zip(pairs, found, strict=True):
        for text, got in zip((pair.chosen, pair.rejected), scores, strict=True):
            prompt, answer = (
                [*Tokenizer.bytes().encode([x], 99)[0][1:-1]] for x in (pair.prompt, text)
            )
            ids = jnp.array([[1, *prompt, *answer, 2]])  # </s> is learned too
            at, one, want = jnp.arange(ids.shape[1])[None], jnp.ones_like(ids), 0.0
            for sign, own in zip((1, -1), params, strict=True):
                logits, _ = module.apply({"params": unflatten(own)}, ids, at, one)
                log_probs = np.asarray(jax.nn.log_softmax(logits[0]), np.float64)
                own_ids = range(len(prompt) + 1, ids.shape[1])
                want += sign * sum(log_probs[t - 1, ids[0, t]] for t in own_ids)
            assert got == pytest.approx(0.3 * want, rel=1e-4)


def test_a_runs_folder_is_no_exported_model(rated):
    with pytest.raises(UserError, match="is a run's folder, not a Hugging Face folder"):
        stored.load(str(rated[0]))


def test_what_is_no_reward_model_is_refused(tmp_path):
    language(tmp_path / "base", 1)
    with pytest.raises(UserError, match="has no head, so it is no reward model"):
        stored.load(str(tmp_path / "base"))
    other = json.loads(Tokenizer.bytes().to_json())
    other["normalizer"] = {"type": "Lowercase"}
    language(tmp_path / "other", 2, json.dumps(other))
    with pytest.raises(UserError, match="has another tokenizer"):
        stored.load(str(tmp_path / "base"), reference=str(tmp_path / "other"))

"""Scores: of a text alone, whatever stands around it; from the folder alone; JSON lines in, JSON lines out."""

import json
import shutil
import types

import jax
import numpy as np
import pytest

from rmjax.data import pipeline
from rmjax.data.examples import singles
from rmjax.data.records import RatedText
from rmjax.data.synthetic import rated_texts
from rmjax.errors import UserError
from rmjax.inference import backbones, scoring
from rmjax.models import heads, shardings
from rmjax.runs import score
from rmjax.train import forward, parallel

TEXTS = [r.text for r in rated_texts(40, seed=3)] + ["", "a", "é ☂", "word " * 100]


@pytest.fixture(scope="module")
def scorer(rated):
    return scoring.load(rated[0])


@pytest.fixture(scope="module")
def tokens(scorer):
    return scorer.reader.tokenizer.encode(TEXTS, scorer.reader.max_length)


@pytest.fixture(scope="module")
def alone(scorer, tokens):
    return np.concatenate([scorer.raw(singles([t]))["score"] for t in tokens], axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_a_score_depends_on_its_text_alone(scorer, tokens, alone, seed):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(TEXTS), size=rng.integers(2, 120))  # any number, order, repeats
    found = scorer.raw(singles([tokens[i] for i in chosen]))["score"]
    np.testing.assert_allclose(found, alone[:, chosen], rtol=1e-5, atol=1e-5)
    assert len(np.unique(alone.round(4))) > 35


@pytest.mark.parametrize("backbone", [backbones.tiny_encoder(), backbones.tiny_decoder()])
def test_tiles_change_no_score(backbone):
    rng = np.random.default_rng(0)
    texts = singles([rng.integers(1, 200, n).astype(np.int32) for n in (300, 280, *[200] * 16)])
    module = backbones.reward_model(
        backbone.config, heads.Scalar(), backbone.pooling, dtype="float32"
    )
    params = backbones.initialize(module, {}, jax.random.key(0))
    layout = parallel.one_device(shardings.spec, 1)
    tiling = scoring.tiling(backbone.config)
    assert all("tiles" in b for b, *_ in pipeline.score_batches(texts, pad_id=0, tiling=tiling))
    whole, tiled = (
        scoring.make_score(forward.scores(module.apply), layout, {}, 1, 0, t)(params, texts)[
            "score"
        ]
        for t in (None, tiling)
    )
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-6)
    assert np.ptp(whole) > 1e-2


def test_the_checkpoint_folder_is_enough(paired, tmp_path, pairs_file):
    home = paired[0]
    shutil.copytree(home / "checkpoints", tmp_path / "moved" / "checkpoints")
    found = scoring.load(tmp_path / "moved")
    assert found.kind == "pairs" and found.config.seeds == 2
    lines = [json.loads(x) for x in (home / "predictions.jsonl").read_text().splitlines()]
    for side in ("chosen", "rejected"):
        texts = [RatedText("", "", "", x[side], 0.0, prompt=x["prompt"]) for x in lines]
        want = [x[f"{side}_score"] for x in lines]
        np.testing.assert_allclose(found.records(texts).mean(0), want, rtol=1e-5, atol=1e-5)


def test_lines_gain_a_score_and_keep_the_rest(rated, alone, tmp_path):
    rows = [{"text": text, "n": i, "umlaut": "ü"} for i, text in enumerate(TEXTS)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = "\ufeff" + "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    source.write_text(body, encoding="utf-8")
    assert score.run(workdir=str(rated[0]), input=str(source), output=str(target)) == {
        "lines": len(rows)
    }
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [{k: v for k, v in x.items() if k != "score"} for x in found] == rows
    np.testing.assert_allclose([x["score"] for x in found], alone[0], rtol=1e-5, atol=1e-5)


def test_pairs_models_score_completions_of_prompts_with_every_seed(paired, capsys, monkeypatch):
    rows = [{"prompt": "Review 2.", "completion": "superb"}, {"text": "superb"}]
    feed(monkeypatch, rows)
    score.run(workdir=str(paired[0]))
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert len(first["scores"]) == 2 and first["score"] == pytest.approx(np.mean(first["scores"]))
    assert first["score"] != pytest.approx(second["score"], abs=1e-4)


def feed(monkeypatch, rows, between=lambda count: None):
    """Makes `rows` the standard input; `between` is called before each with how many were read."""

    def lines():
        for count, row in enumerate(rows):
            between(count)
            yield row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n"

    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=lines()))


def test_scores_stream_before_the_input_ends(rated, monkeypatch, capsys):
    monkeypatch.setattr(score, "CHUNK", 2)
    written = []
    between = lambda count: written.append(len(capsys.readouterr().out.splitlines()))
    feed(monkeypatch, [{"text": text} for text in TEXTS[:5]], between)
    score.run(workdir=str(rated[0]))
    assert written == [0, 0, 2, 0, 2]


BAD = {
    b"{": "line 3: is not JSON",
    b'{"text": "\xff"}': "line 3: is not JSON in UTF-8",
    b"[1]": "line 3: is no JSON object",
    b'{"text": 5}': 'line 3: needs a string in field "text"',
    b'{"prompt": "a"}': 'line 3: needs a string in field "text"',
    b'{"prompt": 5, "completion": "b"}': 'line 3: field "prompt": must be a string or a list',
    b'{"messages": []}': 'line 3: field "messages": must be a list',
    b'{"messages": [{"role": "user", "content": "a"}], "text": "b"}': 'line 3: "messages" are prompt and completion',
    b'{"prompt": "a", "completion": "b", "tools": [{}]}': 'line 3: field "tools": belongs to a conversation',
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named(rated, tmp_path, line):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    with pytest.raises(UserError) as error:
        score.run(workdir=str(rated[0]), input=str(source), output=str(target))
    assert f"{source}, {BAD[line]}" in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("name", ["none.jsonl", "."])
def test_an_input_that_cannot_be_opened(rated, tmp_path, name):
    with pytest.raises(UserError, match="cannot be read"):
        score.run(workdir=str(rated[0]), input=str(tmp_path / name))


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoints/best"):
        score.run(workdir=str(tmp_path))

"""Scores get the level and scale that stated reference texts decide, kept with the model."""

import json

import numpy as np
import pytest

from rmjax.assembly import data as build_data
from rmjax.data.records import RatedText
from rmjax.errors import UserError
from rmjax.inference import normalization, run_folder, scoring
from rmjax.runs import train_reward
from tests.runs.conftest import config, write_jsonl

LINES = {
    "data": "synthetic_ratings(count=60)",
    "model": "tiny_encoder(width=8, layers=1)",
    "epochs": 1.0,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    rows = [{"text": f"good {i} bad", "rating": i % 3} for i in range(7)]
    return write_jsonl(tmp_path_factory.mktemp("reference") / "texts.jsonl", rows)


def texts(path):
    rows = map(json.loads, path.read_text().splitlines())
    return [RatedText(str(i), "", "", r["text"], 0.0) for i, r in enumerate(rows)]


def test_reference_texts_score_0_with_deviation_1_for_every_seed(tmp_path, reference):
    lines = config(**LINES, seeds=2, normalize=f"standardize(reference={str(reference)!r})")
    train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    scorer = scoring.load(tmp_path / "run")
    scores = scorer.records(texts(reference))
    np.testing.assert_allclose(scores.mean(axis=1), [0, 0], atol=1e-4)
    np.testing.assert_allclose(scores.std(axis=1), [1, 1], rtol=1e-3)
    raw = scoring.load(tmp_path / "run", normalized=False).records(texts(reference))
    centered = raw - raw.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(centered / raw.std(axis=1, keepdims=True), scores, atol=1e-4)
    line = json.loads((tmp_path / "run/predictions.jsonl").read_text().splitlines()[0])
    own = scorer.records([RatedText("", "", "", line["text"], 0.0)])
    assert line["score"] == pytest.approx(own.mean(), abs=1e-4)


def test_a_shift_moves_the_level_alone_and_an_unfixed_one_is_an_error(tmp_path):
    lines = config(**LINES, normalize="shift()")
    train_reward.run(config=lines, workdir=str(tmp_path / "run"))
    kept = normalization.load(tmp_path / "run")
    assert kept.scale == [1.0] and kept.reference == "validation" and kept.n == 12
    (tmp_path / "run/checkpoints/normalization.json").unlink()
    with pytest.raises(UserError, match=r"normalization\.json does not exist"):
        scoring.load(tmp_path / "run")


def test_a_reference_that_gives_no_scale_is_refused(tmp_path):
    asked = normalization.Normalize("train", scale=True)
    loaded = build_data.synthetic_ratings(count=10)
    with pytest.raises(UserError, match="'normalize': all texts of reference='train' score alike"):
        normalization.fix(tmp_path, asked, loaded, lambda found: np.ones((1, len(found))))
    assert not (tmp_path / "checkpoints").exists()
    made = normalization.fix(
        tmp_path, asked, loaded, lambda found: np.array([[1.0, 3.0], [0.0, 10.0]])
    )
    np.testing.assert_allclose(made.apply(np.array([[2.0], [10.0]])), [[0.0], [1.0]])
    assert run_folder.read_json(tmp_path / "checkpoints/normalization.json")["n"] == 2

"""Answers to prompts: one line each, in order, the same whatever batch a prompt stands in; ranked; cut; refused."""

import io
import json

import jax
import numpy as np
import pytest

from rmjax.data.encode import Reader
from rmjax.errors import UserError
from rmjax.inference import backbones
from rmjax.models import export
from rmjax.models.policy import Policy
from rmjax.models.transformer import Transformer
from rmjax.runs import generate
from rmjax.runs.export import write
from tests.runs.conftest import write_jsonl
from tests.runs.test_stored import language

PROMPTS = ["the film", "a story of", "x", "the film", "awful and dull"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A Hugging Face folder of a random language model."""
    found = backbones.tiny_decoder()
    module = Policy(Transformer(found.config))
    params = backbones.initialize(module, {}, jax.random.key(0))
    made = export.language_model(found.config, {k: np.asarray(x) for k, x in params.items()})
    target = tmp_path_factory.mktemp("exported") / "policy"
    reader = Reader(found.tokenizer, None, 128, share=False)
    write(target, {"model": made.arrays, "config": made.config}, reader, 0, stop="</s>")
    return str(target)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    rows = [{"prompt": p, "id": i} for i, p in enumerate(PROMPTS)]
    return str(write_jsonl(tmp_path_factory.mktemp("asked") / "prompts.jsonl", rows))


def answered(policy, asked, target, **flags):
    done = generate.run(policy=policy, input=asked, output=str(target), max_new_tokens=8, **flags)
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert done == {"lines": len(lines)}
    return lines


def test_an_answer_does_not_depend_on_the_batch(policy, asked, tmp_path):
    together = answered(policy, asked, tmp_path / "a.jsonl", samples=2, batch_size=5)
    parts = answered(policy, asked, tmp_path / "b.jsonl", samples=2, batch_size=2)
    assert [line["prompt"] for line in together] == PROMPTS
    texts = lambda lines: [[one["text"] for one in line["completions"]] for line in lines]
    assert texts(together) == texts(parts)
    assert len({t for line in texts(together) for t in line}) > 8  # of 10: samples differ
    other = answered(policy, asked, tmp_path / "c.jsonl", samples=2, batch_size=5, seed=1)
    assert texts(other) != texts(together)
    scores = lambda lines: [[one["log_prob"] for one in line["completions"]] for line in lines]
    np.testing.assert_allclose(scores(together), scores(parts), atol=1e-4)


def test_the_best_comes_first_and_a_stop_text_ends(policy, asked, rated, tmp_path):
    ranked = answered(
        policy, asked, tmp_path / "a.jsonl", samples=2, batch_size=5, reward_model=str(rated[0])
    )
    for line in ranked:
        rewards = [one["reward"] for one in line["completions"]]
        assert rewards == sorted(rewards, reverse=True)
    whole = answered(policy, asked, tmp_path / "b.jsonl", samples=2, batch_size=5)
    first = whole[0]["completions"][0]["text"]
    cut = answered(policy, asked, tmp_path / "c.jsonl", samples=2, batch_size=5, stop=first[1])
    assert cut[0]["completions"][0] | {"log_prob": 0} == {
        "text": first[: first.index(first[1])],
        "stopped": True,
        "log_prob": 0,
    }


def test_a_search_gives_the_likeliest_first(policy, asked, tmp_path):
    greedy = answered(policy, asked, tmp_path / "a.jsonl", temperature=0.0, batch_size=2)
    one = answered(policy, asked, tmp_path / "b.jsonl", beams=1, batch_size=2)
    for ours, other in zip(one, greedy, strict=True):
        (own,), (same,) = ours.pop("completions"), other.pop("completions")
        assert own == same | {"log_prob": pytest.approx(same["log_prob"], abs=1e-4)}
        assert ours == other
    wide = answered(policy, asked, tmp_path / "c.jsonl", beams=4, samples=2, batch_size=4)
    assert [line["prompt"] for line in wide] == PROMPTS
    for ours in wide:
        first, second = (found["log_prob"] for found in ours["completions"])
        assert first > second
    assert any(len({found["text"] for found in ours["completions"]}) == 2 for ours in wide)


def test_a_search_may_favor_length_and_says_what_it_found(policy, tmp_path):
    asked, told = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "the film"}]), tmp_path / "out"
    wide = {"policy": policy, "input": str(asked), "output": str(told), "beams": 300, "batch_size": 1}  # fmt: skip

    def found(**flags):
        generate.run(**wide, **flags)
        return json.loads(told.read_text(encoding="utf-8"))["completions"]

    each = found(max_new_tokens=1, samples=300)  # of fewer tokens than beams
    assert len(each) == 259 and sum(np.exp(one["log_prob"]) for one in each) == pytest.approx(1, abs=1e-4)  # fmt: skip
    (short,), (long,) = (found(max_new_tokens=2, length_penalty=p) for p in (0.0, 8.0))
    assert short["text"] == "" and short["stopped"] and len(long["text"]) > 0
    assert long["log_prob"] < 1.5 * short["log_prob"]  # its own, not that over the penalty


def test_at_a_terminal_it_answers_until_an_empty_line(policy, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("the film\nx\n\nnever read\n"))
    assert generate.run(policy=policy, max_new_tokens=8, samples=2) == {"lines": 2}
    assert len(capsys.readouterr().out.split("\n")) >= 4


def test_mistakes_are_named(policy, rated, tmp_path):
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "a"}, {"text": "b"}])
    with pytest.raises(
        UserError, match=r"bad.jsonl, line 2: needs an object with the field \"prompt\""
    ):
        generate.run(policy=policy, input=str(bad), output=str(tmp_path / "o"), max_new_tokens=2)
    assert not (tmp_path / "o").exists()
    with pytest.raises(UserError, match="flags of sampling: top_p"):
        generate.run(policy=policy, top_p=0.0)
    with pytest.raises(UserError, match="--samples: must be at least 1"):
        generate.run(policy=policy, samples=0)
    for flags, message in (
        ({"beams": -1}, "--beams=-1"),
        ({"length_penalty": 1.0}, "--length_penalty: is of a search; set --beams"),
        ({"beams": 2, "temperature": 0.5}, "--beams: a search draws nothing"),
        ({"beams": 2, "logs": True}, "--beams: a search draws nothing"),
        ({"beams": 2, "samples": 3}, "--samples=3: a search with --beams=2"),
    ):
        with pytest.raises(UserError, match=message):
            generate.run(policy=policy, **flags)
    with pytest.raises(UserError, match="is a reward model's run"):
        generate.run(policy=str(rated[0]))


def test_every_end_token_of_a_folder_stops(tmp_path):
    language(tmp_path / "model", 0)
    model, asked = (
        str(tmp_path / "model"),
        str(write_jsonl(tmp_path / "in", [{"prompt": "the film"}])),
    )

    def made(name):
        (line,) = answered(model, asked, tmp_path / name, temperature=0.0)
        return line["completions"][0]

    free = made("a")
    assert not free["stopped"]
    every = {"eos_token_id": [2, *range(3, 259)]}  # whatever comes first
    (tmp_path / "model/generation_config.json").write_text(json.dumps(every))
    found = made("b")
    assert found["stopped"] and found["log_prob"] > free["log_prob"]

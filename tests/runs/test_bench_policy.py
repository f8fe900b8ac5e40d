"""The benchmarks of policies run on any model and count what they say they count."""

import json

import pytest

from configs.policy import get_config
from rmjax.errors import UserError
from rmjax.rl import rollout
from rmjax.runs import bench_policy


def test_sampling_is_a_line_a_batch_whose_figures_fit(capsys):
    lines = bench_policy.generate(
        batches="1,2", prompt_tokens=4, new_tokens=3, samples=2, repeats=1
    )
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines
    assert [x["batch"] for x in lines] == [1, 2]
    for x in lines:
        a_step = x["milliseconds_per_step"] / 1e3
        assert x["tokens_per_second"] * a_step == pytest.approx(x["batch"] * x["samples"])
        weights = x["bytes_per_second"] * a_step  # 4 layers of 12 x 256^2, embeddings and places
        assert weights == pytest.approx(4 * (4 * 12 * 256**2 + 8704 * 256), rel=0.01)
        ratio = x["bytes_per_second"] / x["copy_bytes_per_second"]
        assert x["memory_ratio"] == pytest.approx(ratio)
    with pytest.raises(UserError, match="--batches: 'many' is not whole numbers"):
        bench_policy.generate(batches="many")


def test_ended_rows_are_replaced_and_the_same_tokens_counted(capsys):
    (line,) = bench_policy.continuous(
        batch=4, prompts=12, prompt_tokens=3, new_tokens=8, mean_tokens=4, repeats=1
    )
    assert json.loads(capsys.readouterr().out) == line
    assert 1 <= line["mean_length"] < 8
    ratio = line["continuous_tokens_per_second"] / line["in_batches_tokens_per_second"]
    assert line["gain"] == pytest.approx(ratio)
    with pytest.raises(UserError, match="--prompts: 9 is no multiple of --batch=4"):
        bench_policy.continuous(batch=4, prompts=9)


def test_rollouts_are_counted(capsys):
    config = get_config("tiny_rloo")
    config.update({"parallel": "one_device()", "dtype": "float32", "max_new_tokens": 8})
    (line,) = bench_policy.rollouts(config=config.lock(), seconds=0.01)
    assert json.loads(capsys.readouterr().out) == line
    assert (line["prompts"], line["samples"]) == (16, 2)
    assert line["completions_per_second"] > 0 and 0 < line["share_of_updates"] < 1
    with pytest.raises(UserError, match="'samples': must be at least 1 where rollouts"):
        bench_policy.rollouts(config=get_config("tiny").lock())


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("tiny_ppo", {"policy": "tiny_decoder(width=16, layers=1)", "max_new_tokens": 2}),
        ("tiny_game", {"train_seeds": 8, "policy": "tiny_decoder(width=16, layers=1)"}),
        (
            "tiny_evolution",
            {"policy": "tiny_decoder(width=16, layers=1)", "samples": 2, "max_new_tokens": 2},
        ),
    ],
)
def test_rollouts_of_environments_and_populations_are_measured(name, lines, monkeypatch):
    config = get_config(name)
    config.update({"parallel": "one_device()", "dtype": "float32", "batch_size": 4, **lines})
    measured, prepare = [], rollout.prepare

    def watched(*args, **options):
        measured.append(options["measured"])
        return prepare(*args, **options)

    monkeypatch.setattr(rollout, "prepare", watched)
    (line,) = bench_policy.rollouts(config=config.lock(), seconds=0.01)
    assert line["completions_per_second"] > 0 and 0 < line["share_of_updates"] < 1
    assert measured == [
        name == "tiny_ppo"
    ]  # what sampling said stands, but where a loss has a ratio

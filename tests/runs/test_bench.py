"""The benchmark runs on any config and counts what it says it counts."""

import json

import pytest

from rmjax.errors import UserError
from rmjax.runs import bench
from tests.runs.conftest import config


def test_each_case_is_a_line_whose_figures_fit_each_other(capsys, monkeypatch):
    monkeypatch.setattr(bench, "WIDE", {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32})
    lines = bench.reward(config=config(), dtypes="float32", seconds=0.05)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines
    assert [(x["model"], x["trains_on"], x["layout"]) for x in lines] == [
        (name, *case)
        for name in ("2 x 32", "1 x 16")
        for case in (("texts", "packed"), ("texts", "padded"), ("pairs", "packed"))
    ]
    for x in lines:
        assert x["flop_ratio"] == pytest.approx(
            x["model_flops_per_second"] / x["matmul_flops_per_second"]
        )
        slots = x["rows"] * x["row_length"] * x["steps"]
        tokens = (1 - x["padding"]) * slots
        assert x["tokens_per_second"] / tokens == pytest.approx(
            x["texts_per_second"] / (16 * x["steps"]), rel=0.1
        )
        assert (x["pairs_per_second"] > x["texts_per_second"]) == (x["trains_on"] == "pairs")
    packed, padded = lines[:2]
    assert padded["padding"] > 2 * packed["padding"]


def test_lengths_cut_the_texts(capsys):
    lines = bench.lengths(config=config(), cut_at="24,64", seconds=0.05)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines
    assert [x["cut_at"] for x in lines] == [24, 64]
    per_text = [x["tokens_per_second"] / x["texts_per_second"] for x in lines]
    assert per_text[0] < 24.001 < per_text[1] < 64.001  # quotients of rates are not whole
    for x in lines:
        assert x["milliseconds_per_token"] * x["tokens_per_second"] == pytest.approx(1e3)
    with pytest.raises(UserError, match="--cut_at: 'long' is not whole numbers"):
        bench.lengths(config=config(), cut_at="long")


def test_an_unknown_number_type_is_refused():
    with pytest.raises(UserError, match="--dtype: 'float16'"):
        bench.lengths(config=config(), dtype="float16")
    with pytest.raises(UserError, match="--dtypes: 'float16'"):
        bench.reward(config=config(), dtypes="float16")

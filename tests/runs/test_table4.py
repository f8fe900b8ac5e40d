"""Table 4 of Hutto & Gilbert from the released ratings; its four formats; rows of finished runs."""

import csv
import io
import json

import numpy as np
import pytest

from rmjax.assembly import data
from rmjax.data.records import fingerprint
from rmjax.errors import UserError
from rmjax.runs import reproduce
from rmjax.runs.tables import render, vader_table4
from rmjax.runs.tables.vader_table4 import FIGURES, HUMAN, PUBLISHED, VADER

# What the engine of package 3.3.2 gives, computed by other code.
ENGINE = {
    "tweets": (0.874, 0.978, 0.921, 0.948),
    "movie": (0.427, 0.671, 0.556, 0.590),
    "amazon": (0.590, 0.759, 0.565, 0.626),
    "nyt": (0.503, 0.697, 0.487, 0.549),
}


def finished_run(home, held_out, **changes):
    """A folder as a finished reward run leaves it, as far as the table reads it."""
    figure = {"value": 0.95, "low": 0.94, "high": 0.96, "n": 1023, "documents": 1023}
    metrics = {f"{d}/pearson": figure for d in ENGINE}
    metrics["nyt/pearson"] = figure | {"value": None, "low": None, "high": None}
    results = {"experiment": "reward", "seeds": 3, "trained_domains": ["movie"], "metrics": metrics}
    config = {"loss": "mse()", "data": "human_ratings(domains='movie')"}
    home.mkdir()
    (home / "results.json").write_text(json.dumps(results | changes))
    (home / "config.json").write_text(json.dumps(config | changes))
    (home / "environment.json").write_text(json.dumps({"data": {"test": held_out}}))
    return home


@pytest.fixture(scope="module")
def held_out():
    return fingerprint(data.human_ratings().test)


@pytest.fixture(scope="module")
def made(tmp_path_factory, held_out):
    """One run of the command with one model: its folder and its result."""
    folder = tmp_path_factory.mktemp("table")
    model = finished_run(folder / "model", held_out)
    found = reproduce.run(table="vader_table4", workdir=str(folder / "out"), runs=f"{model}, ")
    return folder / "out", found["rows"]


def pick(rows, **wanted):
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def test_human_figures_are_the_published_ones(made):
    off = []
    for domain in ENGINE:
        (row,) = pick(made[1], who=HUMAN, split="all", domain=domain)
        assert row["verdict"] == "exact"
        for name, printed in zip(FIGURES, PUBLISHED[HUMAN, domain], strict=True):
            if f"{row[name]:.{len(printed) - 1}f}" != f"0{printed}":
                off.append((domain, name, round(row[name], 4), printed))
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert off == [("movie", "r", 0.8996, ".899")]


def test_vader_is_that_of_its_package_and_says_how_it_differs(made):
    for domain, want in ENGINE.items():
        (row,) = pick(made[1], who=VADER, split="all", domain=domain)
        assert [row[name] for name in FIGURES] == pytest.approx(want, abs=0.001)
    (row,) = pick(made[1], who=VADER, split="all", domain="nyt")
    assert row["verdict"] == "differs: r +0.011, precision +0.007"


def test_held_out_rows_and_bars(made):
    counts = {"movie": (1023, 1023), "amazon": (340, 27), "nyt": (631, 60), "tweets": (393, 383)}
    for domain, (texts, documents) in counts.items():
        rows = pick(made[1], split="held out", domain=domain)
        human, vader, against, ceiling, model = rows
        assert (human["verdict"], vader["verdict"]) == ("comparable", "comparable")
        assert vader["r"] < against["r"] < human["r"] < ceiling["r"] < 1
        assert "precision" not in against and "precision" not in model
        assert all((r["n"], r["documents"]) == (texts, documents) for r in rows[:4])


def test_models_are_rows_in_and_across_domains(made):
    rows = pick(made[1], seeds=3)
    name = "mse(), human_ratings(domains='movie')"
    assert {row["domain"]: row["who"] for row in rows} == {
        d: f"{name}: {'in' if d == 'movie' else 'cross'}-domain" for d in ENGINE
    }
    assert rows[0]["r"] == 0.95 and pick(rows, domain="nyt")[0]["r"] is None


def test_a_committee_is_the_mean_of_what_its_runs_predict(tmp_path, held_out):
    test, homes = data.human_ratings().test, []
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=(2, len(test)))
    for i, own in enumerate(predicted):
        homes.append(finished_run(tmp_path / f"run{i}", held_out))
        lines = [
            {"domain": r.domain, "id": r.id, "predicted": float(p)}
            for r, p in zip(test, own, strict=True)
        ]
        rng.shuffle(lines)  # found by domain and id, not by place
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (homes[-1] / "predictions.jsonl").write_text(text)
    rows = vader_table4.committee_rows(homes, test)
    for row in rows:
        at = [i for i, r in enumerate(test) if r.domain == row["domain"]]
        mean, rating = predicted.mean(0)[at], [test[i].rating for i in at]
        assert row["r"] == pytest.approx(np.corrcoef(mean, rating)[0, 1]) and row["n"] == len(at)
        assert row["r_low"] < row["r"] < row["r_high"]
    both = f"{homes[0]} + {homes[1]}"
    names = f"{homes[0]}, {homes[0]}+{homes[1]}"
    found = reproduce.run(table="vader_table4", workdir=str(tmp_path / "out"), runs=names)["rows"]
    assert len(pick(found, run=both)) == len(pick(found, run=str(homes[0]))) == 4
    with pytest.raises(UserError, match="absent holds no results.json"):
        vader_table4.committee_rows([homes[0], tmp_path / "absent"], test)


def test_four_files_hold_the_same_table(made):
    home, rows = made
    texts = {ending: (home / f"table.{ending}").read_text() for ending in render.FORMATS}
    assert not list(home.glob("*.partial"))
    read = list(csv.DictReader(io.StringIO(texts["csv"])))
    loaded = json.loads(texts["json"])["rows"]
    assert len(read) == len(loaded) == len(rows) == 28
    for flat, nested, row in zip(read, loaded, rows, strict=True):
        assert nested["who"] == flat["who"] == row["who"]
        assert nested["r_low"] == row["r_low"] and nested.get("seeds") == row.get("seeds")
        assert flat["r"] == ("" if row["r"] is None else str(row["r"]))
    assert "| 0.888 [0.8" in texts["md"] and "] / .888 |" in texts["md"]
    assert texts["tex"].count(r"\\") == 29 and r"0.888 [0.8" in texts["tex"]


def test_markdown_is_printed(capsys, monkeypatch, tmp_path):
    table = render.Table("A table", ("who", "r"), [{"who": "a|b", "r": 0.5}], ["a note"])
    monkeypatch.setattr(reproduce, "TABLES", {"small": lambda runs: table})
    monkeypatch.chdir(tmp_path)
    reproduce.run(table="small")
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "runs/tables/small/table.md").read_text()
    assert printed.splitlines() == ["# A table", "", "| who | r |", "| --- | --- |", "| a\\|b | 0.500 |",
                                    "", "- a note"]  # fmt: skip


def test_cells():
    records = [
        {"who": "50% & more_{x}", "r": 0.1234, "r_low": 0.1, "r_high": 0.2, "n": 12345},
        {"who": "a,\n\"b\" ~^\\", "r": float("nan"), "r_published": ".90", "n": None},
    ]  # fmt: skip
    table = render.Table("100%", ("who", "r", "n"), records, ())
    assert render.markdown(table).splitlines()[4:6] == [
        "| 50% & more_{x} | 0.123 [0.100, 0.200] | 12,345 |",
        '| a, "b" ~^\\ | – / .90 | – |',
    ]
    body = render.latex(table).splitlines()
    assert r"50\% \& more\_\{x\} & 0.123 [0.100, 0.200] & 12,345 \\" in body
    assert r'a, "b" \textasciitilde{}\textasciicircum{}\textbackslash{} & -- / .90 & -- \\' in body
    assert r"\caption{100\%}" in body
    read = list(csv.reader(io.StringIO(render.comma_separated(table))))
    assert read[0] == ["who", "r", "r_low", "r_high", "r_published", "n"]
    assert read[2] == ['a,\n"b" ~^\\', "", "", "", ".90", ""]
    assert json.loads(render.plain_json(table))["rows"][1]["r"] is None


def test_verdicts():
    row = {f"{name}_published": p for name, p in zip(FIGURES, PUBLISHED[VADER, "nyt"], strict=True)}
    same = dict(zip(FIGURES, (0.4915, 0.6949, 0.4851, 0.5491), strict=True))
    assert vader_table4.verdict(row | same) == "exact"
    assert vader_table4.verdict(row | same | {"r": 0.4905}) == "differs: r -0.002"
    assert vader_table4.verdict(row | same | {"r": 0.4929}) == "exact"  # within .001
    assert (
        vader_table4.verdict(row | same | {"recall": 0.5, "f1": 0.5})
        == "differs: recall +0.010, f1 -0.050"
    )


def test_what_the_user_can_mend_names_it(tmp_path, held_out):
    with pytest.raises(UserError, match="'table5'; known: vader_table4"):
        reproduce.run(table="table5", workdir=str(tmp_path))
    with pytest.raises(UserError, match="absent holds no results.json"):
        list(vader_table4.model_rows(tmp_path / "absent", held_out))
    other = finished_run(tmp_path / "other", held_out, data="file(path='a.jsonl')")
    with pytest.raises(UserError, match="other is no reward run on human ratings"):
        list(vader_table4.model_rows(other, held_out))
    old = finished_run(tmp_path / "old", "another fingerprint")
    with pytest.raises(UserError, match="old was evaluated on other held-out texts"):
        list(vader_table4.model_rows(old, held_out))

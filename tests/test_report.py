"""The report of small made-up run folders: what it shows, and that nothing in it comes from elsewhere."""

import html.parser
import json
import re

import numpy as np
import pytest

from rmjax import report
from rmjax.errors import UserError

EVIL = "<script>alert('x')</script>"
OTHER = 'user/"><i>own'  # a domain of the user's


def figure(value, **counts):
    interval = (None, None) if value is None else (value - 0.02, value + 0.02)
    return {"value": value, "low": interval[0], "high": interval[1], "n": 40, "documents": 30} | counts  # fmt: skip


def begin(home, metrics, domains, validation, **results):
    contents = {
        "config": {"data": EVIL, "seed": 7},
        "environment": {
            "versions": {"jax": "0.10.2"}, "devices": ["cpu:0"], "cores": 2, "revision": "abc123",
            "choices": {"dtype": "bfloat16"},
        },
        "results": {
            "experiment": "reward", "command": f"python -m train --note='{EVIL}'", "seconds": 125.0, "steps": 30,
            "seeds": 1, "best_step": 20, "interval": "95% over documents", "padding": 0.034, "parameters": 22713,
            "peak_memory_bytes": 1_840_000_000, "notes": [f"a note {EVIL}"], "trained_domains": domains[:1],
            "throughput": {"tokens_per_second": 12345.0, "examples_per_second": 355.0,
                           "model_flops_per_second": 8.7e11, "compile_seconds": 4.0},
            "metrics": metrics,
            "reliability": {d: {"predicted": [0.6, 0.9, 0.0], "observed": [0.55, 0.8, 0.0], "pairs": [7, 8, 0]}
                            for d in domains},
        } | results,
    }  # fmt: skip
    for name, value in contents.items():
        (home / f"{name}.json").write_text(json.dumps(value))
    lines = [{"step": s, "train/loss": 1 / s, "train/accuracy": None} for s in (10, 20, 30)]
    lines += [{"step": 20, validation: 0.8}, {"step": 30, validation: 0.7}]
    write_lines(home / "metrics.jsonl", lines)


def write_lines(path, lines):
    path.write_text(
        "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines), encoding="utf-8"
    )


@pytest.fixture
def rated(tmp_path):
    rng = np.random.default_rng(0)
    predictions = []
    for i in range(80):
        rating = float(rng.uniform(-4, 4))
        wrong = 0.1 + 0.01 * i if i % 2 else -0.1 - 0.01 * i  # the later, the more wrong, both ways
        predictions.append(
            {"id": f"t{i}", "domain": ["movie", OTHER][i % 2], "document": f"d{i}", "text": f"text number {i}.",
             "rating": rating, "score": rating, "predicted": rating + wrong}
        )  # fmt: skip
    predictions[79] |= {"text": f"{EVIL} & more \u2028."}
    predictions[78] |= {"text": "very long " * 100}
    predictions[77] |= {"predicted": float("nan")}
    write_lines(tmp_path / "predictions.jsonl", rng.permutation(np.array(predictions)).tolist())
    metrics = {
        "movie/pearson": figure(0.853), "movie/pair_accuracy": figure(0.881, pairs=771),
        f"{OTHER}/pearson": figure(0.5), f"{OTHER}/pair_accuracy": figure(0.6, pairs=771),
        "human/movie/pearson": figure(0.72), "vader/movie/pearson": figure(0.41), "ceiling/movie/pearson": figure(0.99),
        f"vader/{OTHER}/pearson": figure(-0.123), "majority/movie/pearson": figure(None),
        "majority/movie/tie_rate": figure(1.0),
    }  # fmt: skip
    begin(tmp_path, metrics, ["movie", OTHER], "validation/pearson")
    return tmp_path


@pytest.fixture
def pairs(tmp_path):
    predictions = [
        {"id": f"p{i}", "domain": "help", "document": f"d{i}", "prompt": "why?", "chosen": f"chosen {i}.",
         "rejected": EVIL, "chosen_score": (1 if i % 2 else -1) * i / 10, "rejected_score": 0.0}
        for i in range(40)
    ]  # fmt: skip
    write_lines(tmp_path / "predictions.jsonl", predictions)
    metrics = {f"{who}help/pair_accuracy": figure(v, pairs=40)
               for who, v in {"": 0.71, "longer/": 0.56, "shorter/": 0.44, "majority/": 0.5}.items()}  # fmt: skip
    interval = "95% over 3 seeds (Student's t)"
    begin(tmp_path, metrics, ["help"], "validation/pair_accuracy", seeds=3, interval=interval)
    return tmp_path


class Page(html.parser.HTMLParser):
    """What a browser would make of the page: its tags, its addresses, its text, its tables' rows."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text, self.rows, self.in_cell = [], [], "", [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action")
        ]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def row(self, *, domain, who):
        """Metric -> shown value of one row of the comparison."""
        header = [cell.strip() for cell in self.rows[0]]
        start = next(i for i, row in enumerate(self.rows) if row[0].startswith(domain))
        found = next(row for row in self.rows[start + 1 :] if row[0] == who)
        return dict(zip(header, found, strict=True))


def page_of(home):
    report.write(home)
    assert not list(home.glob("*.partial"))
    return Page((home / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["rated", "pairs"])
def test_page_is_self_contained_and_escaped(kind, request):
    home = request.getfixturevalue(kind)
    page = page_of(home)
    text = (home / "report.html").read_text(encoding="utf-8")
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not {"script", "link", "iframe", "img", "i"} & set(page.tags)
    assert page.text.count(EVIL) >= 4  # of the config, the command, the notes and a text, as text


def test_the_same_run_gives_the_same_bytes(rated):
    report.write(rated)
    first = (rated / "report.html").read_bytes()
    report.write(rated)
    assert (rated / "report.html").read_bytes() == first


def test_figures_of_rated_texts(rated):
    page = page_of(rated)
    assert page.row(domain="movie", who="model") == {
        "who": "model", "Pearson": ".853[.833, .873]", "pair accuracy": ".881[.861, .901]", "tie rate": "–", "n": "40",
    }  # fmt: skip
    assert page.row(domain="movie", who="majority")["Pearson"] == "–"
    assert page.row(domain=OTHER, who="VADER")["Pearson"] == "−.123[−.143, −.103]"
    headings = [row[0] for row in page.rows if len(row) == 1]
    assert ["not trained on" in heading for heading in headings] == [False, True]
    assert "30 documents, 771 pairs" in headings[0]
    words = page.text.replace("\u00a0", " ")
    assert (
        f"r = .85 [.83, .87] on movie and .50 [.48, .52] on {OTHER} (not trained on). Compared with one person "
        "against the others, it is better on movie (.72); VADER reaches −.12 to .41 and the noise ceiling is .99."
    ) in words
    for shown in ("95% over documents", "2 min 5 s", "12,345 tokens/s", "870 GFLOP/s", "1.84 GB", "3.4%", "22,713",
                  "bfloat16", "abc123", "0.10.2", "python -m train", '"seed": 7'):  # fmt: skip
        assert shown in words
    assert (
        page.tags.count("svg") == 2 + 2 + 2 + 2
    )  # learning (no accuracy known), agreement, reliability, ratings
    assert "kept: step 20" in page.text


def test_figures_of_pairs(pairs):
    page = page_of(pairs)
    words = page.text.replace("\u00a0", " ")
    assert (
        "On held-out help pairs the model sides with people at a rate of .71 [.69, .73]. Always taking the longer "
        "answer reaches .56, the shorter one .44 and a constant score .50."
    ) in words
    assert "95% over 3 seeds" in words
    assert "Pearson" not in page.rows[0]
    assert page.tags.count("svg") == 2 + 1 + 1  # learning, reliability, gaps


def test_calibration_errors_stand_beside_what_noise_makes(pairs):
    results = json.loads((pairs / "results.json").read_text())
    about = {"n": 40, "documents": 30, "pairs": 40}
    errors = {"ece": (0.02, 0.0, 0.11), "ece_plain": (0.14,), "ece_calibrated": (0.135,)}
    for name, (value, *ends) in errors.items():
        low, high = ends or (None, None)
        results["metrics"][f"help/{name}"] = {"value": value, "low": low, "high": high} | about
    words = page_of(pairs).text
    assert "by chance" not in words  # of runs that have no such figures
    (pairs / "results.json").write_text(json.dumps(results))
    page = page_of(pairs)
    row = page.row(domain="help", who="model")
    assert row["ECE ↓"] == ".020[.000, .110]"
    assert (row["plain ECE ↓"], row["plain ECE by chance"]) == (".140", ".135")
    assert "ECE .020 [.000, .110]; plain .140, by chance .135" in page.text
    assert "what a\nperfectly calibrated model would show" in page.text


def test_ten_most_wrong_texts_come_first_to_last(rated):
    page = page_of(rated)
    start = next(i for i, row in enumerate(page.rows) if row[0].strip() == "text")
    shown = page.rows[start + 1 :]
    assert [re.findall(r"t\d+$", row[1].strip())[0] for row in shown] == [
        f"t{i}"
        for i in (79, 78, 76, 75, 74, 73, 72, 71, 70, 69)  # 77 has no prediction
    ]
    assert shown[0][0].startswith(EVIL)
    error = [float(row[3].replace("−", "-")) - float(row[2].replace("−", "-")) for row in shown]
    np.testing.assert_allclose(error[:3], [0.89, -0.88, -0.86], atol=0.011)


def test_ten_most_wrong_pairs_prefer_the_rejected_answer_most(pairs):
    page = page_of(pairs)
    start = next(i for i, row in enumerate(page.rows) if row[0].strip() == "prompt")
    shown = page.rows[start + 1 :]
    assert [row[1] for row in shown] == [f"chosen {i}." for i in range(38, 18, -2)]
    assert shown[0][-1] == "−3.80"


def test_no_pair_is_wrong(pairs):
    lines = [json.loads(line) for line in (pairs / "predictions.jsonl").read_text().splitlines()]
    write_lines(pairs / "predictions.jsonl", [p | {"rejected_score": -9.0} for p in lines])
    assert "None is wrong." in page_of(pairs).text


NAMES = ["config.json", "environment.json", "results.json", "metrics.jsonl", "predictions.jsonl"]


@pytest.mark.parametrize("name", NAMES)
def test_missing_and_damaged_files_are_named(rated, name):
    (rated / name).write_text('{"a": ')
    with pytest.raises(UserError, match=re.escape(f"{name} is damaged")):
        report.write(rated)
    (rated / name).unlink()
    with pytest.raises(UserError, match=re.escape(f"{name} does not exist")):
        report.write(rated)
    assert not (rated / "report.html").exists()


def test_a_ranking_is_shown_as_its_best_against_the_best_of_the_rest(tmp_path):
    line = {"id": "r1", "domain": "help", "document": "d", "prompt": [["user", "Why?"]], "ratings": [0.0, 2.0, 1.0],
            "completions": ["low one.", "best one.", "middle one."], "scores": [0.5, 1.0, 3.0]}  # fmt: skip
    told = line | {"id": "r2", "prompt": "How?", "scores": [0.0, 5.0, 1.0]}
    write_lines(
        tmp_path / "predictions.jsonl", [line, told, line | {"id": "r3", "ratings": [1.0] * 3}]
    )
    metrics = {
        "help/pair_accuracy": figure(0.71, pairs=6), "help/top1_accuracy": figure(0.5, pairs=6),
        "longer/help/pair_accuracy": figure(0.56, pairs=6), "Chat/pair_accuracy": figure(0.6, pairs=6),
    }  # fmt: skip
    begin(tmp_path, metrics, ["help"], "validation/pair_accuracy")
    page = page_of(tmp_path)
    assert page.row(domain="help", who="model")["top-1 accuracy"] == ".500[.480, .520]"
    assert page.row(domain="Chat", who="model")["pair accuracy"] == ".600[.580, .620]"
    (wrong,) = [row for row in page.rows if "best one." in row]
    assert wrong[:3] == ["user: Why?", "best one.", "middle one."] and wrong[-1] == "−2.00"
    assert "pairs the model sides with people at a rate of" in page.text


def test_a_process_is_shown_step_by_step(tmp_path):
    lines = [
        {"id": "p1", "domain": "sums", "document": "d", "prompt": "Add.", "steps": ["First.", "Then."],
         "labels": [1.0, 0.0], "scores": [2.0, 900.0]}
    ]  # fmt: skip
    write_lines(tmp_path / "predictions.jsonl", lines)
    metrics = {
        "sums/step_accuracy": figure(0.71, steps=2), "sums/step_auc": figure(0.5, steps=2),
        "majority/sums/step_accuracy": figure(0.5, steps=2),
    }  # fmt: skip
    begin(tmp_path, metrics, ["sums"], "validation/step_accuracy")
    page = page_of(tmp_path)
    assert page.row(domain="sums", who="model")["step AUC"] == ".500[.480, .520]"
    assert "right about a step at a rate of .71" in page.text.replace("\u00a0", " ")
    assert "calling every step right reaches .50" in page.text.lower()
    shown = [row for row in page.rows if row[-1] == "1.00" and row[0] == "Then."]
    assert len(shown) == 1 and "Correlations are with" not in page.text

"""A finished run's folder -> report.html: one self-contained page, made from the folder's files alone."""

import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmjax.errors import UserError

WHO = {  # rows of the comparison, in this order
    "": "model",
    "human": "one person",
    "ceiling": "noise ceiling",
    "vader": "VADER",
    "longer": "the longer",
    "shorter": "the shorter",
    "length": "length",
    "majority": "majority",
}
METRICS = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kendall": "Kendall",
    "pair_accuracy": "pair accuracy",
    "top1_accuracy": "top-1 accuracy",
    "step_accuracy": "step accuracy",
    "step_auc": "step AUC",
    "first_error_accuracy": "first error found",
    "tie_rate": "tie rate",
    "ece": "ECE ↓",
    "brier": "Brier ↓",
    "log_score": "log score ↓",
}
VERDICTS = {  # the first that there is: what the model reaches, and what others do
    "pearson": (
        "texts the model's scores correlate with people at r\u00a0=\u00a0{}",
        {"vader": "VADER reaches {}", "ceiling": "the noise ceiling is {}"},
    ),
    "step_accuracy": (
        "solutions the model is right about a step at a rate of {}",
        {"majority": "calling every step right reaches {}"},
    ),
    "pair_accuracy": (
        "pairs the model sides with people at a rate of {}",
        {
            "longer": "Always taking the longer answer reaches {}",
            "shorter": "the shorter one {}",
            "majority": "a constant score {}",
        },
    ),
}
WRONG = 10  # texts shown
CONTRAST, BLUE, ORANGE = "#010203", "#3b82c4", "#d9772b"  # the colors read on white and on black
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rmjax",  # the same run gives the same bytes
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": CONTRAST,
    "grid.alpha": 0.12,
    **{f"{k}color": CONTRAST for k in ("text.", "axes.edge", "axes.label", "xtick.", "ytick.")},
}
DIAGONAL: dict[str, Any] = {"color": CONTRAST, "alpha": 0.6, "linewidth": 0.8, "linestyle": "--"}
Lines = list[dict[str, Any]]
Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]  # who ("" is the model) -> metric -> figure


class _Plot(NamedTuple):
    caption: str
    svg: Markup


def write(home: Path) -> None:
    """Writes report.html into the folder of a finished run, whole or not at all.

    Raises: UserError naming the file, where one is missing or broken.
    """
    names = "config.json", "environment.json", "results.json"
    config, environment, results = (_read(home, name)[0] for name in names)
    predictions = [p for line in _read(home, "predictions.jsonl") for p in _shown(line)]
    paired = "chosen" in predictions[0]
    table = _table(results["metrics"], {p["domain"] for p in predictions})
    told = {m for rows in table.values() for figures in rows.values() for m in figures}
    with matplotlib.rc_context(STYLE):
        plots = {
            "learning": _learning(_read(home, "metrics.jsonl"), results["best_step"]),
            "agreement": _agreement(predictions, table) if "pearson" in told else [],
            "reliability": _reliability(results["reliability"], table),
            "distributions": (_gaps if paired else _ratings)(predictions),
        }
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template.filters |= {f.__name__[1:]: f for f in (_number, _interval, _duration, _scaled)}
    page = template.get_template("report.html.jinja").render(
        name=home.resolve().name,
        paired=paired,
        verdict=_verdict(table, results["trained_domains"]),
        table=table,
        metrics=[m for m in METRICS if m in told],
        metric_names=METRICS,
        who_names=WHO,
        plots=plots,
        wrong=_most_wrong(predictions, paired),
        results=results,
        environment=environment,
        config=json.dumps(config, indent=2, ensure_ascii=False),
    )
    partial = home / "report.html.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, home / "report.html")


def _read(home: Path, name: str) -> Lines:
    """The objects in a file: one in .json, one a line in .jsonl."""
    path = home / name
    fix = f"{home} must be the folder of a finished run; run the command that began it again, or name another"
    try:
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n") if name.endswith("l") else [text]  # a line may hold U+2028
        found = [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {fix}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; {fix}") from error
    if not found:
        raise UserError(f"{path} is empty; {fix}")
    return found


def _shown(line: dict[str, Any]) -> Lines:
    """A line of predictions as the page shows it: texts and pairs as they are, a ranking as its best completion against
    the highest-scored of the lower-rated ones, a process as its steps.
    """
    prompt = line.get("prompt", "")
    if not isinstance(prompt, str):
        line = line | {"prompt": "\n".join(f"{role}: {content}" for role, content in prompt)}
    if "steps" in line:
        steps = enumerate(zip(line["steps"], line["labels"], line["scores"], strict=True), 1)
        return [
            {"id": f"{line['id']}, step {k}", "domain": line["domain"], "text": step, "rating": label,
             "predicted": 1 / (1 + math.exp(-min(max(score, -50), 50)))}
            for k, (step, label, score) in steps
        ]  # fmt: skip
    if "completions" not in line:
        return [line]
    rating, score = line["ratings"], line["scores"]
    best = rating.index(max(rating))
    lower = [i for i in range(len(rating)) if rating[i] < rating[best]]
    if not lower:
        return []
    rival = max(lower, key=lambda i: score[i])
    for side, i in {"chosen": best, "rejected": rival}.items():
        line = line | {side: line["completions"][i], f"{side}_score": score[i]}
    return [line]


def _table(metrics: Mapping[str, Mapping[str, Any]], domains: set[str]) -> dict[str, Rows]:
    """The flat keys of results.json, nested; a domain's name may itself hold a slash."""
    table: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for key, figure in metrics.items():
        place, _, metric = key.rpartition("/")
        alone = place in domains or "/" not in place
        who, domain = ("", place) if alone else place.split("/", 1)
        table.setdefault(domain, {}).setdefault(who, {})[metric] = figure
    rank = lambda row: [*WHO, row[0]].index(row[0])
    return {domain: dict(sorted(rows.items(), key=rank)) for domain, rows in table.items()}


def _most_wrong(predictions: Lines, paired: bool) -> Lines:
    """Rated texts furthest from people's mean; pairs that prefer the rejected answer by most."""
    if paired:
        error = lambda p: p["rejected_score"] - p["chosen_score"]
    else:
        error = lambda p: abs(p["predicted"] - p["rating"])
    return sorted((p for p in predictions if error(p) > 0), key=error, reverse=True)[:WRONG]


# In words


def _verdict(table: Mapping[str, Rows], trained: Sequence[str]) -> str:
    """Two sentences: how far the model agrees with people, and how that compares."""
    table = {
        k: v for k, v in table.items() if k == "RewardBench"
    } or table  # its score, not 23 subsets
    metric = next(m for m in VERDICTS if any(m in rows[""] for rows in table.values()))
    (sentence, phrases), alone, found = VERDICTS[metric], len(table) == 1, []
    for domain, rows in table.items():
        figure = rows[""][metric]
        text = f"{_number(figure['value'], 2)} {_interval(figure, 2)}".strip()
        unseen = "" if domain in trained else " (not trained on)"
        found.append(text.replace(" ", "\u00a0") + ("" if alone else f" on {domain}") + unseen)
    held = f"On held-out {f'{next(iter(table))} ' if alone else ''}"
    first = f"{held}{sentence.format(_series(found))}."
    reached = {who: _span(table, who, metric) for who in phrases}
    rest = _series([phrase.format(reached[w]) for w, phrase in phrases.items() if reached[w]])
    second = "; ".join(p for p in (_against_people(table), rest) if p)
    return f"{first} {second[0].upper()}{second[1:]}." if second else first


def _span(table: Mapping[str, Rows], who: str, metric: str) -> str:
    """A baseline's figure, or its smallest and largest over the domains."""
    figures = [rows[who][metric]["value"] for rows in table.values() if who in rows]
    known = sorted(v for v in figures if v is not None)
    return " to ".join(dict.fromkeys(_number(v, 2) for v in (*known[:1], *known[-1:])))


def _against_people(table: Mapping[str, Rows]) -> str:
    """Where the model is better than one person; level where the two intervals overlap."""
    groups: dict[str, list[str]] = {"better": [], "level": [], "worse": []}
    for domain, rows in table.items():
        model, person = (rows.get(who, {}).get("pearson", {}) for who in ("", "human"))
        if None in (model.get("low"), model.get("high"), person.get("low"), person.get("high")):
            continue
        above, below = model["low"] > person["high"], model["high"] < person["low"]
        where = "" if len(table) == 1 else f"{domain} "
        found = groups["better" if above else "worse" if below else "level"]
        found.append(f"{where}({_number(person['value'], 2)})")
    on = "" if len(table) == 1 else "on "
    parts = ", ".join(f"{word} {on}{_series(found)}" for word, found in groups.items() if found)
    return f"compared with one person against the others, it is {parts}" if parts else ""


def _series(parts: Sequence[str]) -> str:
    return " and ".join(p for p in (", ".join(parts[:-1]), *parts[-1:]) if p)


def _number(value: float | int | None, places: int = 3) -> str:
    """.853, −.020, 1.250; – for what is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{round(value, places) + 0.0:.{places}f}"  # + 0.0: no minus zero
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", "−")


def _interval(figure: Mapping[str, Any], places: int = 3) -> str:
    if figure.get("low") is None or figure.get("high") is None:
        return ""
    return f"[{_number(figure['low'], places)}, {_number(figure['high'], places)}]"


def _duration(seconds: float | int) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s" if minutes else f"{seconds:.1f} s"


def _scaled(value: float | int, unit: str) -> str:
    """1.42 GB, 38 MFLOP/s: three digits and a prefix."""
    power = min(int(math.log10(value) // 3), 5) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {' kMGTP'[power].strip()}{unit}"


# In plots


def _axes(x: str, y: str, size: tuple[float, float] = (3.2, 2.8)) -> Axes:
    axes = Figure(figsize=size, layout="constrained").add_subplot()
    axes.set(xlabel=x, ylabel=y)
    return axes


def _plot(axes: Axes, caption: str, alt: str) -> _Plot:
    """The figure as SVG within the page: text in the page's font, lines in the page's color."""
    buffer, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    axes.figure.figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata=nothing)
    head, _, body = buffer.getvalue().partition("<svg")[2].partition(">")
    view = re.findall(r'viewBox="[^"]*"', head)[0]
    body = re.sub(r' id="(?:line2d|[A-Za-z.]+)_\d+"', "", body)  # every figure has the same ones
    label = f'<svg {view} role="img" aria-label="{escape(alt)}">'
    return _Plot(caption, Markup(label + body.replace(CONTRAST, "currentColor")))


def _learning(lines: Lines, best: int) -> list[_Plot]:
    """Training loss and accuracy, and what validation watches, by step."""
    watched = dict.fromkeys(n for line in lines for n in line if n.startswith("validation/"))
    plots = []
    for name in ("train/loss", "train/accuracy", *watched):
        points = [(p["step"], p[name]) for p in lines if p.get(name) is not None]
        if not points:
            continue
        step, value = np.array(points, float).T
        words = name.replace("/", " ").replace("_", " ")
        axes = _axes("step", "", (4.4, 2.7))
        axes.set_xlim(0, 1.03 * lines[-1]["step"])
        axes.plot(step, value, color=BLUE, marker="o" if len(step) < 30 else "", markersize=4)
        caption = words
        if name in watched:
            axes.axvline(best, **DIAGONAL)
            caption = f"{words}; kept: step {best:,}"
        start, end = (f"{_number(value[i])} at step {step[i]:,.0f}" for i in (0, -1))
        plots.append(_plot(axes, caption, f"{words} by step: {start}, {end}"))
    return plots


def _by_domain(predictions: Lines, *keys: str) -> dict[str, np.ndarray]:
    """Each domain's values of the keys, [keys, texts]; without those that are not finite."""
    found: dict[str, list[list[float]]] = {}
    for p in predictions:
        if all(math.isfinite(p[k]) for k in keys):
            found.setdefault(p["domain"], []).append([p[k] for k in keys])
    return {domain: np.array(values, float).T for domain, values in found.items()}


def _agreement(predictions: Lines, table: Mapping[str, Rows]) -> list[_Plot]:
    """Predicted against human ratings, on the same axes for all domains."""
    domains, plots = _by_domain(predictions, "rating", "predicted"), []
    limits = _limits(domains.values())
    for domain, (rating, predicted) in domains.items():
        axes = _axes("people's mean rating", "predicted rating")
        axes.plot(limits, limits, **DIAGONAL)
        axes.scatter(rating, predicted, s=9, color=BLUE, alpha=0.55, linewidths=0, rasterized=True)
        axes.set(xlim=limits, ylim=limits)
        r = f"r = {_number(table[domain]['']['pearson']['value'], 2)}"
        alt = f"{domain}: predicted against people's mean rating of {len(rating):,} texts, {r}"
        plots.append(_plot(axes, f"{domain}: {r}", alt))
    return plots


def _limits(values: Iterable[np.ndarray]) -> tuple[float, float]:
    flat = np.concatenate([v.ravel() for v in values])
    low, high = float(flat.min()), float(flat.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _reliability(
    found: Mapping[str, Mapping[str, Sequence[float]]], table: Mapping[str, Rows]
) -> list[_Plot]:
    """Observed against predicted shares; a point's area follows its bin's pairs."""
    plots = []
    for domain, bins in found.items():
        values = np.array([bins[k] for k in ("predicted", "observed", "pairs")], float)
        predicted, observed, pairs = values[:, values[2] > 0]
        axes = _axes("predicted share", "observed share")
        axes.plot([0.5, 1], [0.5, 1], **DIAGONAL)
        axes.plot(predicted, observed, color=BLUE, linewidth=1, alpha=0.6)
        axes.scatter(predicted, observed, s=30 * pairs / max([1, *pairs]), color=BLUE)
        axes.set(xlim=(0.48, 1.02), ylim=(min([0.5, *observed]) - 0.03, 1.02))
        sizes = dict.fromkeys(f"{n:,.0f}" for n in sorted(pairs)[:: max(len(pairs) - 1, 1)])
        ece = f"ECE {_number(table[domain][''].get('ece', {}).get('value'))}"
        size = f"{len(pairs)} bins of {' to '.join(sizes)} pairs"
        alt = f"{domain}: observed share of raters against predicted share, {size}, {ece}"
        plots.append(_plot(axes, f"{domain}: {ece}\n{size}", alt))
    return plots


def _ratings(predictions: Lines) -> list[_Plot]:
    """Histograms of human and predicted ratings, in the same bins for all domains."""
    domains, plots = _by_domain(predictions, "rating", "predicted"), []
    edges = np.linspace(*_limits(domains.values()), 31).tolist()
    for domain, (rating, predicted) in domains.items():
        axes = _axes("rating", "texts")
        axes.hist(predicted, edges, color=BLUE, alpha=0.7)
        axes.hist(rating, edges, color=ORANGE, histtype="step", linewidth=1.4)
        words = [f"{_number(v.mean(), 2)} ± {_number(v.std(), 2)}" for v in (rating, predicted)]
        axes.locator_params(axis="y", integer=True)
        alt = f"{domain}: histograms of human ratings ({words[0]}) and predictions ({words[1]})"
        plots.append(_plot(axes, domain, alt))
    return plots


def _gaps(predictions: Lines) -> list[_Plot]:
    """Histograms of the chosen answer's lead, the wrong side apart."""
    plots = []
    for domain, (chosen, rejected) in _by_domain(
        predictions, "chosen_score", "rejected_score"
    ).items():
        gap = chosen - rejected
        width = float(np.ptp([*gap, 0.0])) / 40 or 1.0
        edges = [width * k for k in range(int(gap.min() // width), int(gap.max() // width) + 2)]
        axes = _axes("score gap, chosen − rejected", "pairs")
        axes.hist([gap[gap > 0], gap[gap <= 0]], edges, color=[BLUE, ORANGE], stacked=True)
        axes.axvline(0, color=CONTRAST, linewidth=0.8)
        axes.locator_params(axis="y", integer=True)
        alt = f"{domain}: histogram of {len(gap):,} score gaps, {np.mean(gap > 0):.0%} above 0"
        plots.append(_plot(axes, domain, alt))
    return plots

"""The page of a reward run: agreement with people beside baselines, learning, reliability, and where it is wrong."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.report import page
from rmjax.report.page import Lines, interval, number, series
from rmjax.report.plots import (
    BLUE,
    CONTRAST,
    DIAGONAL,
    ORANGE,
    Plot,
    axes_of,
    curves,
    drawn,
    limits,
    styled,
)

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
    "ece_plain": "plain ECE ↓",
    "ece_calibrated": "plain ECE by chance",
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
Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]  # who ("" is the model) -> metric -> figure


def fill(home: Path, results: Mapping[str, Any]) -> str:
    """The page of a finished reward run.

    Raises: UserError naming the file, where one is missing or broken.
    """
    predictions = [p for line in page.read(home, "predictions.jsonl") for p in _shown(line)]
    paired = "chosen" in predictions[0]
    table = _table(results["metrics"], {p["domain"] for p in predictions})
    told = {m for rows in table.values() for figures in rows.values() for m in figures}
    with styled():
        plots = {
            "learning": _learning(page.read(home, "metrics.jsonl"), results["best_step"]),
            "agreement": _agreement(predictions, table) if "pearson" in told else [],
            "reliability": _reliability(results["reliability"], table),
            "distributions": (_gaps if paired else _ratings)(predictions),
        }
    return page.fill(
        "reward.html.jinja",
        home,
        results,
        paired=paired,
        verdict=_verdict(table, results["trained_domains"]),
        table=table,
        metrics=[m for m in METRICS if m in told],
        metric_names=METRICS,
        who_names=WHO,
        plots=plots,
        wrong=_most_wrong(predictions, paired),
    )


def _shown(line: dict[str, Any]) -> Lines:
    """A line of predictions as the page shows it: texts and pairs as they are, a ranking as its best completion against
    the highest-scored of the lower-rated ones, a process as its steps.
    """
    line = line | {"prompt": page.said(line.get("prompt", ""))}
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
        text = f"{number(figure['value'], 2)} {interval(figure, 2)}".strip()
        unseen = "" if domain in trained else " (not trained on)"
        found.append(text.replace(" ", "\u00a0") + ("" if alone else f" on {domain}") + unseen)
    held = f"On held-out {f'{next(iter(table))} ' if alone else ''}"
    first = f"{held}{sentence.format(series(found))}."
    reached = {who: _span(table, who, metric) for who in phrases}
    rest = series([phrase.format(reached[w]) for w, phrase in phrases.items() if reached[w]])
    second = "; ".join(p for p in (_against_people(table), rest) if p)
    return f"{first} {second[0].upper()}{second[1:]}." if second else first


def _span(table: Mapping[str, Rows], who: str, metric: str) -> str:
    """A baseline's figure, or its smallest and largest over the domains."""
    figures = [rows[who][metric]["value"] for rows in table.values() if who in rows]
    known = sorted(v for v in figures if v is not None)
    return " to ".join(dict.fromkeys(number(v, 2) for v in (*known[:1], *known[-1:])))


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
        found.append(f"{where}({number(person['value'], 2)})")
    on = "" if len(table) == 1 else "on "
    parts = ", ".join(f"{word} {on}{series(found)}" for word, found in groups.items() if found)
    return f"compared with one person against the others, it is {parts}" if parts else ""


# In plots


def _learning(lines: Lines, best: int) -> list[Plot]:
    """Training loss and accuracy, and what validation watches, by step."""
    watched = dict.fromkeys(n for line in lines for n in line if n.startswith("validation/"))
    words = lambda name: name.replace("/", " ").replace("_", " ")
    return [
        plot
        for name in ("train/loss", "train/accuracy", *watched)
        for plot in curves(lines, {name: ""}, words(name), best if name in watched else None)
    ]


def _by_domain(predictions: Lines, *keys: str) -> dict[str, np.ndarray]:
    """Each domain's values of the keys, [keys, texts]; without those that are not finite."""
    found: dict[str, list[list[float]]] = {}
    for p in predictions:
        if all(math.isfinite(p[k]) for k in keys):
            found.setdefault(p["domain"], []).append([p[k] for k in keys])
    return {domain: np.array(values, float).T for domain, values in found.items()}


def _agreement(predictions: Lines, table: Mapping[str, Rows]) -> list[Plot]:
    """Predicted against human ratings, on the same axes for all domains."""
    domains, plots = _by_domain(predictions, "rating", "predicted"), []
    ends = limits(domains.values())
    for domain, (rating, predicted) in domains.items():
        axes = axes_of("people's mean rating", "predicted rating")
        axes.plot(ends, ends, **DIAGONAL)
        axes.scatter(rating, predicted, s=9, color=BLUE, alpha=0.55, linewidths=0, rasterized=True)
        axes.set(xlim=ends, ylim=ends)
        r = f"r = {number(table[domain]['']['pearson']['value'], 2)}"
        alt = f"{domain}: predicted against people's mean rating of {len(rating):,} texts, {r}"
        plots.append(drawn(axes, f"{domain}: {r}", alt))
    return plots


def _reliability(
    found: Mapping[str, Mapping[str, Sequence[float]]], table: Mapping[str, Rows]
) -> list[Plot]:
    """Observed against predicted shares; a point's area follows its bin's pairs."""
    plots = []
    for domain, bins in found.items():
        values = np.array([bins[k] for k in ("predicted", "observed", "pairs")], float)
        predicted, observed, pairs = values[:, values[2] > 0]
        axes = axes_of("predicted share", "observed share")
        axes.plot([0.5, 1], [0.5, 1], **DIAGONAL)
        axes.plot(predicted, observed, color=BLUE, linewidth=1, alpha=0.6)
        axes.scatter(predicted, observed, s=30 * pairs / max([1, *pairs]), color=BLUE)
        axes.set(xlim=(0.48, 1.02), ylim=(min([0.5, *observed]) - 0.03, 1.02))
        sizes = dict.fromkeys(f"{n:,.0f}" for n in sorted(pairs)[:: max(len(pairs) - 1, 1)])
        ece = _ece(table[domain][""])
        size = f"{len(pairs)} bins of {' to '.join(sizes)} pairs"
        alt = f"{domain}: observed share of raters against predicted share, {size}, {ece}"
        plots.append(drawn(axes, f"{domain}: {ece}\n{size}", alt))
    return plots


def _ece(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The calibration errors in words: debiased, and what the diagram shows beside what noise alone would show."""
    value = lambda name: number(figures.get(name, {}).get("value"))
    found = f"ECE {value('ece')} {interval(figures.get('ece', {}))}".strip()
    if "ece_plain" not in figures:
        return found
    return f"{found}; plain {value('ece_plain')}, by chance {value('ece_calibrated')}"


def _ratings(predictions: Lines) -> list[Plot]:
    """Histograms of human and predicted ratings, in the same bins for all domains."""
    domains, plots = _by_domain(predictions, "rating", "predicted"), []
    edges = np.linspace(*limits(domains.values()), 31).tolist()
    for domain, (rating, predicted) in domains.items():
        axes = axes_of("rating", "texts")
        axes.hist(predicted, edges, color=BLUE, alpha=0.7)
        axes.hist(rating, edges, color=ORANGE, histtype="step", linewidth=1.4)
        words = [f"{number(v.mean(), 2)} ± {number(v.std(), 2)}" for v in (rating, predicted)]
        axes.locator_params(axis="y", integer=True)
        alt = f"{domain}: histograms of human ratings ({words[0]}) and predictions ({words[1]})"
        plots.append(drawn(axes, domain, alt))
    return plots


def _gaps(predictions: Lines) -> list[Plot]:
    """Histograms of the chosen answer's lead, the wrong side apart."""
    plots = []
    for domain, (chosen, rejected) in _by_domain(
        predictions, "chosen_score", "rejected_score"
    ).items():
        gap = chosen - rejected
        width = float(np.ptp([*gap, 0.0])) / 40 or 1.0
        edges = [width * k for k in range(int(gap.min() // width), int(gap.max() // width) + 2)]
        axes = axes_of("score gap, chosen − rejected", "pairs")
        axes.hist([gap[gap > 0], gap[gap <= 0]], edges, color=[BLUE, ORANGE], stacked=True)
        axes.axvline(0, color=CONTRAST, linewidth=0.8)
        axes.locator_params(axis="y", integer=True)
        alt = f"{domain}: histogram of {len(gap):,} score gaps, {np.mean(gap > 0):.0%} above 0"
        plots.append(drawn(axes, domain, alt))
    return plots

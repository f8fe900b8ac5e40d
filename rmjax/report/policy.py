"""The page of a policy run: what it gained and lost against the first policy, its monitors, and what it writes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.report import page
from rmjax.report.page import Lines, interval, number, series
from rmjax.report.plots import BLUE, CONTRAST, ORANGE, WIDE, Plot, axes_of, curves, drawn, styled

ANSWERS = {  # figures of what is written to prompts: their names, and decimals
    "gold": ("gold reward", 3),
    "reward": ("reward", 3),
    "kl": ("KL, nats", 3),
    "length": ("length, tokens", 1),
    "missing_stop": ("missing stop", 3),
    "distinct_1": ("distinct-1", 3),
    "distinct_2": ("distinct-2", 3),
}
TEXTS = {  # figures of how well held-out texts are predicted
    "perplexity": ("perplexity ↓", 2),
    "nats_per_token": ("nats per token ↓", 3),
    "bits_per_byte": ("bits per byte ↓", 3),
}
WHO = {"reference/": "first policy", "": "trained policy", "gain/": "difference"}
BOTH = {"validation/reward": "reward", "validation/gold": "gold"}
CURVES = {  # a plot each: its caption, and the metrics in it
    "training loss": {"train/loss": ""},
    "training accuracy": {"train/accuracy": ""},
    "reward of rollouts": {"rollout/reward": ""},
    "KL of rollouts from the first policy, nats": {"rollout/kl": ""},
    "reward on validation prompts": BOTH,
    "objective on validation prompts: reward − β KL": {"validation/objective": ""},
    "KL on validation prompts, nats": {"validation/kl": ""},
    "log-probability of validation texts, nats per token": {"validation/log_prob": ""},
    "entropy, nats per token": {"train/entropy": ""},
    "length": {
        "rollout/length": "rollouts, tokens",
        "validation/length": "validation, tokens",
    },
    "missing stop": {
        "rollout/missing_stop": "rollouts",
        "validation/missing_stop": "validation",
    },
    "distinct n-grams of rollouts": {
        "rollout/distinct_1": "distinct-1",
        "rollout/distinct_2": "distinct-2",
    },
    "repetition of rollouts": {"rollout/repetition": ""},
    "β, the KL coefficient": {"rollout/beta": ""},
    "gradient norm": {"train/grad_norm": ""},
    "deviation of fitness within the population": {"train/fitness_deviation": ""},
    "norm of the update": {"train/update_norm": ""},
}
SAMPLES, FOLLOWED = (
    12,
    4,
)  # prompts shown: with both policies' answers, and with the answers by step
Figures = Mapping[str, Mapping[str, Any]]
Table = dict[str, dict[str, Figures]]  # heading -> metric -> who (of WHO) -> figure


def fill(home: Path, results: Mapping[str, Any]) -> str:
    """The page of a finished policy run.

    Raises: UserError naming the file, where one is missing or broken.
    """
    lines, figures = page.read(home, "metrics.jsonl"), results["metrics"]
    samples = _samples(page.read(home, "samples.jsonl")) if "reward" in figures else []
    by_step = home / "samples_by_step.jsonl"
    table = _table(figures)
    with styled():
        plots = {
            "learning": _learning(lines, results["best_step"]),
            "divergence": _divergence(lines, results["best_step"]),
        }
    return page.fill(
        "policy.html.jinja",
        home,
        results,
        verdict=_verdict(figures),
        table=table,
        columns={who: name for who, name in WHO.items() if _any_of(table, who)},
        names=ANSWERS | TEXTS,
        plots=plots,
        watched="gold" if "gold" in figures else "reward",
        samples=samples,
        followed=_followed(page.read(home, by_step.name)) if by_step.exists() else [],
    )


# Figures


def _domains(figures: Figures) -> list[str]:
    """The domains of the held-out texts."""
    end = "/bits_per_byte"
    keys = [key for key in figures if key.endswith(end) and not key.startswith("reference/")]
    return [key.removesuffix(end) for key in keys]


def _table(figures: Figures) -> Table:
    """The flat keys of results.json under the headings of the table."""

    def group(place: str, metrics: Mapping[str, Any]) -> dict[str, Figures]:
        found = {
            metric: {w: figures[w + place + metric] for w in WHO if w + place + metric in figures}
            for metric in metrics
        }
        return {metric: own for metric, own in found.items() if own}

    table = {"answers to held-out prompts": group("", ANSWERS)}
    for domain in _domains(figures):
        found = group(f"{domain}/", TEXTS)
        perplexity = {who: _exp(figure) for who, figure in found["nats_per_token"].items()}
        table[f"{domain}: held-out texts"] = {"perplexity": perplexity, **found}
    return {heading: found for heading, found in table.items() if found}


def _exp(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Nats per token as the perplexity, which rises with it, so that the interval's ends are its ends."""
    ends = ("value", "low", "high")
    return {**figure} | {k: None if figure[k] is None else math.exp(figure[k]) for k in ends}


def _any_of(table: Table, who: str) -> bool:
    return any(who in own for found in table.values() for own in found.values())


def _samples(lines: Lines) -> Lines:
    """Answers before and after: where the watched reward gained most, where it lost most, and evenly spaced ones."""
    lines = [line | {"prompt": page.said(line["prompt"])} for line in lines]
    name = "gold" if "gold" in lines[0]["rewards"] else "reward"
    gain = [line["rewards"][name] - line["reference_rewards"][name] for line in lines]
    most, least = int(np.argmax(gain)), int(np.argmin(gain))
    marks = {most: "largest gain"} if gain[most] > 0 else {}
    marks |= {least: "largest loss"} if gain[least] < 0 else {}
    rest = [i for i in range(len(lines)) if i not in marks]
    shown = [*marks, *_spaced(rest, SAMPLES - len(marks))]
    return [lines[i] | {"mark": marks.get(i, "")} for i in shown]


def _followed(lines: Lines) -> list[Lines]:
    """Of a few prompts each, what was answered at one step after the other."""
    found: dict[tuple[str, str], Lines] = {}
    for line in lines:
        line = line | {"prompt": page.said(line["prompt"])}
        found.setdefault((line["domain"], line["id"]), []).append(line)
    return _spaced(list(found.values()), FOLLOWED)


def _spaced(found: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly spaced."""
    places = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
    return [found[i] for i in places]


# In words


def _verdict(figures: Figures) -> str:
    """One sentence: what training gained, and at what KL."""
    return _earned(figures) if "reward" in figures else _predicted(figures)


def _earned(figures: Figures) -> str:
    name = "gold" if "gold" in figures else "reward"
    what, gain = ANSWERS[name][0], figures[f"gain/{name}"]
    span = lambda key: (
        f"from {number(figures[f'reference/{key}']['value'])} to {number(figures[key]['value'])}"
    )
    lost = {k: None if gain[k] is None else -gain[k] for k in gain}
    lost |= {"low": lost["high"], "high": lost["low"]}
    told = lambda figure: f"{number(figure['value'])} {interval(figure)}".strip()
    known = gain["low"] is not None
    if known and gain["low"] > 0:
        moved = f"raised {what} by {told(gain)}"
    elif known and gain["high"] < 0:
        moved = f"lowered {what} by {told(lost)}"
    else:
        moved = f"did not clearly change {what} (difference {told(gain)})"
    proxy = f"; the reward it trained on went {span('reward')}" if name == "gold" else ""
    return (
        f"On {gain['n']:,} held-out prompts, training {moved}, {span(name)}, at {number(figures['kl']['value'], 2)} "
        f"nats of KL from the first policy{proxy}{_perplexity(figures)}."
    )


def _perplexity(figures: Figures) -> str:
    """The perplexity of all held-out texts, as a clause: nats per token, averaged over tokens."""

    def pooled(who: str) -> str:
        own = [figures.get(f"{who}{domain}/nats_per_token") for domain in _domains(figures)]
        known = [f for f in own if f is not None]
        tokens = sum(f["tokens"] for f in known)
        nats = sum(f["value"] * f["tokens"] for f in known)
        return number(math.exp(nats / tokens), 1) if known else ""

    before, after = pooled("reference/"), pooled("")
    change = f"went from {before} to {after}" if before else f"is {after}"
    return f"; the perplexity of held-out texts {change}" if after else ""


def _predicted(figures: Figures) -> str:
    told = lambda figure: f"{number(figure['value'], 2)} {interval(figure, 2)}".strip()
    cost = lambda domain: (
        f"{told(figures[f'{domain}/nats_per_token'])} nats per token and "
        f"{told(figures[f'{domain}/bits_per_byte'])} bits per byte on {domain}"
    )
    return f"Held-out texts cost the model {series([cost(d) for d in _domains(figures)])}{_perplexity(figures)}."


# In plots


def _learning(lines: Lines, best: int) -> list[Plot]:
    """What is worth watching, by step."""
    kept = lambda names: best if any(n.startswith("validation/") for n in names) else None
    return [
        plot
        for caption, names in CURVES.items()
        for plot in curves(lines, names, caption, kept(names))
    ]


def _divergence(lines: Lines, best: int) -> list[Plot]:
    """Reward on validation prompts against KL, ascending in the KL; a ring is the checkpoint that was kept."""
    axes, told = axes_of("KL from the first policy, nats", "reward", WIDE), []
    for color, (name, label) in zip((BLUE, ORANGE), BOTH.items(), strict=True):
        known = [p for p in lines if None not in (p.get(name), p.get("validation/kl"))]
        points = sorted((p["validation/kl"], p[name], p["step"]) for p in known)
        if not points:
            continue
        kl, reward, step = np.array(points, float).T
        axes.plot(kl, reward, color=color, marker="o", markersize=4, label=label)
        ring: dict[str, Any] = {"s": 90, "facecolors": "none", "edgecolors": CONTRAST}
        axes.scatter(kl[step == best], reward[step == best], **ring)
        ends = (f"{number(reward[i])} at {number(kl[i], 2)} nats" for i in (0, -1))
        told.append(f"{label} from {' to '.join(ends)}")
    if not told:
        return []
    axes.legend(frameon=False)
    caption = f"reward against KL on validation prompts; kept: step {best:,}"
    return [drawn(axes, caption, f"reward against KL: {series(told)}")]

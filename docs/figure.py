"""Draws docs/agreement.svg from run folders: python docs/figure.py "MPNet" runs/ratings_mpnet "MiniLM" runs/ratings

Agreement (Pearson's r) with the mean human rating on held-out documents, by domain, with 95% intervals.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

plt.switch_backend("svg")
plt.rcParams.update({"svg.hashsalt": "rmjax", "svg.fonttype": "none", "font.size": 10})

DOMAINS = {
    "tweets": "tweets",
    "movie": "movie reviews",
    "amazon": "product reviews",
    "nyt": "editorials",
}
COLORS = ("#1f6f8b", "#5fa8b8", "#d1495b", "#b0a18f")


def main(*named: str) -> None:
    """Draws the figure. named: a label and a run folder, one model after the other."""
    models = dict(zip(named[::2], named[1::2], strict=True))
    read = {
        name: json.loads((Path(home) / "results.json").read_text())["metrics"]
        for name, home in models.items()
    }
    first = next(iter(read.values()))
    rows = [(name, figures, "") for name, figures in read.items()]
    rows += [("one person", first, "human/"), ("VADER (lexicon)", first, "vader/")]
    figure, axes = plt.subplots(figsize=(7.2, 2.9))
    for i, (name, figures, prefix) in enumerate(rows):
        found = [figures[f"{prefix}{domain}/pearson"] for domain in DOMAINS]
        values = [f["value"] for f in found]
        spread = [[v - f["low"] for v, f in zip(values, found, strict=True)],
                  [f["high"] - v for v, f in zip(values, found, strict=True)]]  # fmt: skip
        at = [place + (i - (len(rows) - 1) / 2) * 0.19 for place in range(len(DOMAINS))]
        axes.bar(at, values, 0.17, yerr=spread, color=COLORS[i % len(COLORS)], label=name,
                 error_kw={"lw": 1, "capsize": 2, "ecolor": "#444"})  # fmt: skip
    for place, domain in enumerate(DOMAINS):
        ceiling = first[f"ceiling/{domain}/pearson"]["value"]
        label = "noise ceiling" if place == 0 else None
        axes.plot(
            [place - 0.42, place + 0.42], [ceiling] * 2, color="#222", lw=1, ls=":", label=label
        )
    axes.set_xticks(
        range(len(DOMAINS)),
        [f"{DOMAINS[d]}\n(n = {first[f'{d}/pearson']['n']:,})" for d in DOMAINS],
    )
    axes.set_ylabel("r with the mean rating")
    axes.set_ylim(0, 1.04)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="lower center", ncols=len(rows) + 1, frameon=False, fontsize=9, columnspacing=1.2
    )
    figure.subplots_adjust(left=0.09, right=0.99, top=0.98, bottom=0.28)
    figure.savefig(Path(__file__).with_name("agreement.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a person sees while a run goes on: one bar with loss, tokens/s and time left; lines where no terminal is."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from rmjax.train.metrics import Log

CONSOLE = Console(stderr=True, highlight=False)
if not CONSOLE.is_terminal:
    CONSOLE.width = 132  # of a log file: 80 columns would fold the table
SECONDS = 15.0  # between lines where no terminal is


def note(text: str) -> None:
    """Prints what a user would want to know; brackets in it are no markup."""
    CONSOLE.print(f"note: {text}", markup=False)


@contextlib.contextmanager
def bar(steps: int, start: int) -> Iterator[Log]:
    """A callback for `train`'s progress; shows the latest of what it is told."""
    shown: dict[str, float] = {}
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=CONSOLE, disable=not CONSOLE.is_terminal) as progress:
        task = progress.add_task("compiling", total=steps, completed=start)
        told = began = time.monotonic()

        def show(step: int, values: Mapping[str, float]) -> None:
            nonlocal told
            shown.update(values)
            text = describe(shown)
            progress.update(task, completed=step, description=text)
            now = time.monotonic()
            validated = any(name.startswith("validation/") for name in values)
            if not CONSOLE.is_terminal and (validated or now - told > SECONDS):
                told = now
                left = (now - began) / max(step - start, 1) * (steps - step)
                CONSOLE.print(f"step {step}/{steps}  {text}  {left:.0f} s left")

        yield show


HIDDEN = (
    "length",
    "repetition",
    "missing_stop",
    "distinct",
    "objective",
)  # of validation; metrics.jsonl has them


def describe(values: Mapping[str, float]) -> str:
    """One line of the figures worth watching."""
    names = [
        "train/loss",
        "train/accuracy",
        *(f"rollout/{name}" for name in ("reward", "kl")),
        *sorted(
            k
            for k in values
            if k.startswith("validation/") and not k.split("/")[1].startswith(HIDDEN)
        ),
    ]
    parts = [
        f"{name.removeprefix('train/')} {values[name]:.4f}" for name in names if name in values
    ]
    if "tokens_per_second" in values:
        parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(parts)


COLUMNS = {
    "pearson": "r",
    "spearman": "rho",
    "pair_accuracy": "accuracy",
    "top1_accuracy": "top 1",
    "step_accuracy": "steps",
    "ece": "ECE (debiased)",
}


def table(results: Mapping[str, Any]) -> Table:
    """The comparison of results.json for a terminal: who agrees with people, and how well."""
    metrics = results["metrics"]
    names = [m for m in COLUMNS if any(key.endswith(f"/{m}") for key in metrics)]
    shown = Table("domain", "who", *(COLUMNS[n] for n in names), "n", caption=results["interval"])
    rows: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for key, figure in metrics.items():
        *who, domain, name = key.split("/")
        rows.setdefault((domain, *who), {})[name] = figure
    trained = results["trained_domains"]
    unseen = {row[0] for row in rows} - set(trained) if trained else set()
    domains = list(dict.fromkeys(row[0] for row in rows))
    for row, figures in sorted(rows.items(), key=lambda item: domains.index(item[0][0])):
        domain = f"{row[0]} (not trained on)" if row[0] in unseen else row[0]
        label = [domain, "model"] if len(row) == 1 else ["", row[1]]
        cells = [_cell(figures.get(name)) for name in names]
        n = next(iter(figures.values()))["n"]
        shown.add_row(*label, *cells, f"{n:,}")
    return shown


def figures(results: Mapping[str, Any]) -> Table:
    """All figures of results.json for a terminal, a line each."""
    shown = Table("figure", "value", "n", caption=results["interval"])
    for name, figure in results["metrics"].items():
        shown.add_row(name, _cell(figure), f"{figure['n']:,}")
    return shown


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"

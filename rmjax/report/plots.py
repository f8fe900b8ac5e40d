"""Plots as SVG within a page: text in the page's font, lines in the page's color."""

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmjax.report.page import Lines, number, series

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
WIDE = (4.4, 2.7)  # inches


class Plot(NamedTuple):
    """A drawn figure and what is written above it."""

    caption: str
    svg: Markup


def styled() -> Any:
    """A context in which figures are drawn as the pages want them."""
    return matplotlib.rc_context(STYLE)


def axes_of(x: str, y: str, size: tuple[float, float] = (3.2, 2.8)) -> Axes:
    """Empty axes with these labels; size: inches."""
    axes = Figure(figsize=size, layout="constrained").add_subplot()
    axes.set(xlabel=x, ylabel=y)
    return axes


def drawn(axes: Axes, caption: str, alt: str) -> Plot:
    """The axes' figure, drawn; alt: what it shows, for those who cannot see it."""
    buffer, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    axes.figure.figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata=nothing)
    head, _, body = buffer.getvalue().partition("<svg")[2].partition(">")
    view = re.findall(r'viewBox="[^"]*"', head)[0]
    body = re.sub(r' id="(?:line2d|[A-Za-z.]+)_\d+"', "", body)  # every figure has the same ones
    label = f'<svg {view} role="img" aria-label="{escape(alt)}">'
    return Plot(caption, Markup(label + body.replace(CONTRAST, "currentColor")))


def curves(
    lines: Lines, names: Mapping[str, str], caption: str, kept: int | None = None
) -> list[Plot]:
    """One plot of metrics by step, or none where none of them was logged.

    lines: of metrics.jsonl. names: metrics, one or two, and what each is called beside the other.
    kept: the step of a checkpoint, which is marked.
    """
    found = {
        label: np.array([(p["step"], p[name]) for p in lines if p.get(name) is not None], float)
        for name, label in names.items()
    }
    found = {label: points.T for label, points in found.items() if len(points)}
    if not found:
        return []
    axes, told = axes_of("step", "", WIDE), []
    axes.set_xlim(0, 1.03 * lines[-1]["step"])
    for color, (label, (step, value)) in zip((BLUE, ORANGE), found.items(), strict=False):
        marker = "o" if len(step) < 30 else ""
        axes.plot(step, value, color=color, marker=marker, markersize=4, label=label)
        start, end = (f"{number(value[i])} at step {step[i]:,.0f}" for i in (0, -1))
        told.append(f"{label} {start}, {end}".strip())
    if len(names) > 1:
        axes.legend(frameon=False)
    if kept is not None:
        axes.axvline(kept, **DIAGONAL)
        caption = f"{caption}; kept: step {kept:,}"
    return [drawn(axes, caption, f"{caption.partition(';')[0]} by step: {series(told)}")]


def limits(values: Iterable[np.ndarray]) -> tuple[float, float]:
    """The least and the largest of all values, with a margin."""
    flat = np.concatenate([v.ravel() for v in values])
    low, high = float(flat.min()), float(flat.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin

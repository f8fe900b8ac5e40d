"""What a person sees while a run goes on: one bar with loss, tokens/s and time left; lines where no terminal is."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rmjax.train.metrics import Log

CONSOLE = Console(stderr=True, highlight=False)
SECONDS = 15.0  # between lines where no terminal is


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
            if not CONSOLE.is_terminal and (validated or step == steps or now - told > SECONDS):
                told = now
                left = (now - began) / max(step - start, 1) * (steps - step)
                CONSOLE.print(f"step {step}/{steps}  {text}  {left:.0f} s left")

        yield show


def describe(values: Mapping[str, float]) -> str:
    """One line of the figures worth watching."""
    names = [
        "train/loss",
        "train/accuracy",
        *sorted(k for k in values if k.startswith("validation/")),
    ]
    parts = [
        f"{name.removeprefix('train/')} {values[name]:.4f}" for name in names if name in values
    ]
    if "tokens_per_second" in values:
        parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(parts)

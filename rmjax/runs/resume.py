"""What every training run does around its loop: saves what it never trains, and says where it goes on."""

import datetime
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from rmjax import report
from rmjax.inference import run_folder
from rmjax.runs import progress, speed
from rmjax.train import checkpoint
from rmjax.train.parallel import Layout


def reported(home: Path) -> dict[str, Any] | None:
    """The results of a finished run, its page written where a kill came between the two; None of another."""
    done = run_folder.finished(home)
    if done is not None:
        if not (home / "report.html").exists():
            report.write(home)
        progress.CONSOLE.print(f"This run is done: {home}/results.json, {home}/report.html")
    return done


def choices(home: Path, config: Any) -> dict[str, str]:
    """What the run chose when it began: the number type, the faster one where the config says "auto", and the day."""
    before = run_folder.choices(home)
    if before is not None:
        return before
    dtype = speed.faster_dtype() if config.dtype == "auto" else config.dtype
    return {"dtype": dtype, "date": datetime.date.today().isoformat()}


def begin(home: Path, frozen: PyTree, layout: Layout, steps: int) -> int:
    """Saves `frozen` once, and gives the step that the run goes on from, 0 of a new one."""
    held = home / "checkpoints/frozen"
    if frozen and checkpoint.latest(held) is None:
        checkpoint.save(held, 0, {"frozen": layout.get(frozen)}, {})
    start = checkpoint.latest(home / "checkpoints/last") or 0
    if start:
        progress.CONSOLE.print(f"going on from step {start} of {steps}")
        if changed := run_folder.changes(home):
            progress.CONSOLE.print(
                f"note: {'; '.join(changed)}: the result may differ from an unbroken run's in its last digits"
            )
    return start


def kept(home: Path) -> str:
    """Which checkpoint a run that diverged can be gone on from, as a clause."""
    last = checkpoint.latest(home / "checkpoints/last")
    if last is None:
        return "no checkpoint was saved yet"
    return f"that of step {last} is the last good checkpoint"

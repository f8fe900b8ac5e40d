"""What every training run does around its loop: saves what it never trains, and says where it goes on."""

from pathlib import Path

from jaxtyping import PyTree

from rmjax.runs import folder, progress
from rmjax.train import checkpoint
from rmjax.train.parallel import Layout


def begin(home: Path, frozen: PyTree, layout: Layout, steps: int) -> int:
    """Saves `frozen` once, and gives the step that the run goes on from, 0 of a new one."""
    held = home / "checkpoints/frozen"
    if frozen and checkpoint.latest(held) is None:
        checkpoint.save(held, 0, {"frozen": layout.get(frozen)}, {})
    start = checkpoint.latest(home / "checkpoints/last") or 0
    if start:
        progress.CONSOLE.print(f"going on from step {start} of {steps}")
        if changed := folder.changes(home):
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

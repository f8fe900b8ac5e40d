"""Scalars of a run: metrics.jsonl and TensorBoard, both cut back to the step a run resumes from."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

Log = Callable[[int, Mapping[str, float]], None]


class Writer:
    """Appends scalars by step. What was logged after `start`, before a kill, is taken back."""

    def __init__(self, folder: Path, start: int):
        """Opens metrics.jsonl and tensorboard/ in `folder`."""
        path = folder / "metrics.jsonl"
        kept = [line for line in read(folder) if line["step"] <= start]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(partial, path)
        self._file = path.open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line; NaN and infinities become null."""
        finite = {k: v if abs(v) < float("inf") else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._board.close()


def read(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl; a last line that a kill cut short is left out."""
    path = folder / "metrics.jsonl"
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines

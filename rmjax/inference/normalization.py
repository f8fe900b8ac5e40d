"""The level and scale of scores, fixed on stated reference texts once training is over.

They are part of the model: kept beside its checkpoints, applied to every score, exported.
Source: Ziegler et al. 2019 (arXiv:1909.08593) section 2.1; Stiennon et al. 2020 (arXiv:2009.01325) section 3.4.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmjax.data import sources
from rmjax.data.records import Data, Record
from rmjax.errors import UserError
from rmjax.inference import run_folder


class Normalize(NamedTuple):
    """Which texts' raw scores get mean 0 (and deviation 1): "train", "validation", or a file of records."""

    reference: str
    scale: bool


def none() -> None:
    """Scores stay as the model gives them."""


def shift(*, reference: str = "validation") -> Normalize:
    """The reference texts score 0 on average."""
    return Normalize(reference, scale=False)


def standardize(*, reference: str = "validation") -> Normalize:
    """The reference texts' scores have mean 0 and deviation 1."""
    return Normalize(reference, scale=True)


NORMALIZE = {f.__name__: f for f in (none, shift, standardize)}


class Normalization(NamedTuple):
    """score = (raw - mean) / scale, one pair of numbers a seed; `reference` says which `n` scores they come from."""

    mean: list[float]
    scale: list[float]
    reference: str
    n: int

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Raw scores [S, M] on the reference's scale."""
        mean, scale = (np.array(x, np.float32)[:, None] for x in (self.mean, self.scale))
        return (scores - mean) / scale


def _file(workdir: Path) -> Path:
    return workdir / "checkpoints/normalization.json"


def load(workdir: Path) -> Normalization:
    """That of a finished run.

    Raises: UserError if the run's config asks for one and it is not there.
    """
    return Normalization(**run_folder.read_json(_file(workdir)))


def fix(
    workdir: Path,
    asked: Normalize,
    loaded: Data,
    score: Callable[[Sequence[Record]], np.ndarray],
) -> Normalization:
    """Measures the reference texts' raw scores, writes what follows from them and gives it back.

    score: records -> raw scores [S, ...].
    Raises: UserError if the reference cannot be read, or all of its scores are equal and a scale is asked for.
    """
    splits = {name: getattr(loaded, name) for name in ("train", "validation")}
    found = splits.get(asked.reference) or sources.read(asked.reference).records
    raw = score(found)
    raw = raw.reshape(len(raw), -1).astype(np.float64)
    scale = raw.std(axis=1) if asked.scale else np.ones(len(raw))
    if not np.all(scale > 0):
        raise UserError(
            f"config key 'normalize': all texts of reference={asked.reference!r} score alike, which gives no scale; "
            "name other texts, or use shift()"
        )
    made = Normalization(raw.mean(axis=1).tolist(), scale.tolist(), asked.reference, raw.shape[1])
    run_folder.write_json(_file(workdir), made._asdict())
    return made

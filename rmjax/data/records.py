"""What a data set holds, whatever file it came from: rated texts or preference pairs."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class RatedText:
    """A text and what people said of it; `rating` is the mean of `ratings` where there are several."""

    id: str
    domain: str
    document: str  # texts of one document never straddle a split, and intervals resample documents
    text: str
    rating: float
    ratings: tuple[float, ...] = ()  # every rater's own, empty where unknown
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better one first; the prompt may be empty."""

    id: str
    domain: str
    document: str
    prompt: str
    chosen: str
    rejected: str
    margin: float | None = None  # how much better, in the data's own units
    target: float | None = None  # share of votes for `chosen`, ties counted half
    weight: float = 1.0


Record = RatedText | Pair


def fingerprint(records: Sequence[Record]) -> str:
    """The sha256 of the records' contents in order, in hex: a changed data set changes it."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(dataclasses.astuple(record), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()

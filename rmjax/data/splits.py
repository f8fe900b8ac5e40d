"""Which split a document falls into: by hash, so that it never changes, duplicates always together."""

import collections
import hashlib
from collections.abc import Sequence

import numpy as np

from rmjax.data.records import Pair, Process, Prompt, Ranking, RatedText, Record, Text

SPLITS = ("train", "validation", "test")


def normalized(prompt: Prompt) -> str:
    """The lower-cased letters and digits of a text, or of all messages: what makes two texts duplicates."""
    text = prompt if isinstance(prompt, str) else "".join(message[1] for message in prompt)
    return "".join(c for c in text.lower() if c.isalnum())


def split_of(domain: str, document: str) -> str:
    """The split of sha256("domain/document") mod 10: 0 to 7 train, 8 validation, 9 test."""
    bucket = int(hashlib.sha256(f"{domain}/{document}".encode()).hexdigest(), 16) % 10
    return SPLITS[max(bucket - 7, 0)]


def part_of(record: Record, count: int) -> int:
    """Which of `count` parts a record falls into, by a hash of its document: parts have no document in common."""
    name = f"part/{record.domain}/{record.document}"
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % count


def assign(records: Sequence[Record]) -> list[str]:
    """The split of each record.

    Documents of one domain that share a duplicate text are joined, and go where the smallest of them goes.
    """
    return [split_of(*key) for key in _joined(records)]


def folds(records: Sequence[Record], k: int, seed: int) -> np.ndarray:
    """The fold of each record, 0 to k - 1, for k-fold evaluation of a small set: int64 [N].

    Joined documents stay together; larger ones are dealt first, each to the fold that holds the fewest records of its
    domain, then the fewest of all, in an order that the seed decides.
    Raises: ValueError if k is below 2, or above the number of joined documents.
    """
    keys = _joined(records)
    sizes = collections.Counter(keys)
    if not 2 <= k <= len(sizes):
        raise ValueError(f"k must be from 2 to the {len(sizes)} documents there are, got {k}")
    shuffled = lambda key: hashlib.sha256(f"{seed}/{key[0]}/{key[1]}".encode()).hexdigest()
    filled: dict[str, np.ndarray] = {}  # records of each fold, by domain
    fold_of = {}
    for key in sorted(sizes, key=lambda key: (-sizes[key], shuffled(key))):
        own = filled.setdefault(key[0], np.zeros(k, np.int64))
        fold_of[key] = int(np.lexsort((np.sum(list(filled.values()), axis=0), own))[0])
        own[fold_of[key]] += sizes[key]
    return np.array([fold_of[key] for key in keys])


def _joined(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Domain and document of each record, the smallest of those that share a duplicate text with it."""
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key):
        while leader.setdefault(key, key) != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for record in records:
        mine = root((record.domain, record.document))
        other = root(seen.setdefault((record.domain, normalized(_text(record))), mine))
        low, high = sorted((mine, other))
        leader[high] = low
    return [root((r.domain, r.document)) for r in records]


def _text(record: Record) -> str:
    """What makes two records duplicates of each other: the prompt with the (better, or every) completion."""
    head = normalized(record.prompt)
    match record:
        case Text() | RatedText():
            return head + record.text
        case Pair():
            return head + record.chosen
        case Ranking():
            return head + "".join(record.completions)
        case Process():
            return head + "".join(record.steps)

"""Which split a document falls into: by hash, so that it never changes, duplicates always together."""

import hashlib
from collections.abc import Sequence

from rmjax.data.records import Pair, Record

SPLITS = ("train", "validation", "test")


def normalized(text: str) -> str:
    """The lower-cased letters and digits of a text: what makes two texts duplicates."""
    return "".join(c for c in text.lower() if c.isalnum())


def split_of(domain: str, document: str) -> str:
    """The split of sha256("domain/document") mod 10: 0 to 7 train, 8 validation, 9 test."""
    bucket = int(hashlib.sha256(f"{domain}/{document}".encode()).hexdigest(), 16) % 10
    return SPLITS[max(bucket - 7, 0)]


def assign(records: Sequence[Record]) -> list[str]:
    """The split of each record.

    Documents of one domain that share a duplicate text are joined, and go where the smallest of them goes.
    """
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key):
        while leader.setdefault(key, key) != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for record in records:
        mine = root((record.domain, record.document))
        text = record.prompt + record.chosen if isinstance(record, Pair) else record.text
        other = root(seen.setdefault((record.domain, normalized(text)), mine))
        low, high = sorted((mine, other))
        leader[high] = low
    return [split_of(*root((r.domain, r.document))) for r in records]

"""The `data` line of a config: records in three splits, the same shape whatever the source."""

import re
from pathlib import PurePosixPath
from typing import NamedTuple

from rmjax import assets
from rmjax.data import sources, splits, synthetic
from rmjax.data.builders import human_ratings as builder
from rmjax.data.records import Pair, Process, Ranking, RatedText, Record
from rmjax.errors import UserError

KINDS = {RatedText: "texts", Pair: "pairs", Ranking: "rankings", Process: "processes"}


class Data(NamedTuple):
    """Records of one kind. `scale`: lowest and highest rating where they are whole numbers and known."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]
    scale: tuple[int, int] | None
    notes: list[str]  # what was left out, and why

    @property
    def kind(self) -> str:
        """What the records are: texts, pairs, rankings or processes."""
        return KINDS[type(self.train[0])]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names that training texts have ratings by, sorted."""
        texts = [r for r in self.train if isinstance(r, RatedText)]
        return tuple(sorted({name for r in texts for name, _ in r.attributes}))


def human_ratings(*, domains: str = "all") -> Data:
    """Texts with 15 to 20 human ratings each (Hutto & Gilbert 2014).

    domains: "movie", "amazon", "nyt", "tweets", several joined by "+", or "all": those to train and choose on.
      The test split always holds all four, so that agreement across domains is seen.
    """
    chosen = builder.DOMAINS if domains == "all" else tuple(domains.split("+"))
    unknown = sorted(set(chosen) - set(builder.DOMAINS))
    if unknown:
        raise UserError(
            f"config key 'data': no domain {unknown}; there are {', '.join(builder.DOMAINS)}"
        )
    source, prepared = assets.folder("human_ratings"), assets.cache() / "tfds"
    with assets.locked("tfds"):  # TFDS fails where two processes prepare at once
        found = builder.load(source, prepared)
    return Data(
        [r for r in found["train"] if r.domain in chosen],
        list(found["validation"]),
        list(found["test"]),
        (-4, 4),
        [],
    )


def file(*, path: str, validation: str = "", test: str = "", low: int = 0, high: int = 0) -> Data:
    """Your own JSONL or Parquet file, local or hf://; README says which fields.

    validation, test: files of those splits; without both, documents of `path` are split 8 : 1 : 1 by hash.
    low, high: the rating scale, for losses over classes; left out where ratings are not whole numbers.
    """
    if bool(validation) != bool(test):
        raise UserError("config key 'data': file() needs both validation= and test=, or neither")
    if low > high:
        raise UserError(f"config key 'data': file(): low={low} is not below high={high}")
    scale = (low, high) if low != high else None
    read = sources.read(path)
    if test:
        # Records that do not name their domain are of the training file's, whatever these files are called.
        domain = PurePosixPath(path).name.split(".")[0]
        others = [sources.read(other, domain) for other in (validation, test)]
        parts = [list(read.records), *(list(o.records) for o in others)]
        notes = [note for part in (read, *others) for note in part.notes]
    else:
        names = splits.assign(read.records)
        parts = [
            [r for r, n in zip(read.records, names, strict=True) if n == s] for s in splits.SPLITS
        ]
        notes = list(read.notes)
    kinds = {type(r) for part in parts for r in part}
    if len(kinds) > 1:
        raise UserError(
            "config key 'data': the files mix rated texts and pairs; give files of one kind"
        )
    for part, name in zip(parts, splits.SPLITS, strict=True):
        if not part:
            raise UserError(
                f"config key 'data': no record of {path} falls into {name}; name files for each split"
            )
    train, held, last = parts
    if not {r.domain for r in train} & {r.domain for r in held}:
        raise UserError(
            f"config key 'data': no record of {validation or path} has a domain that is trained on, so there is "
            "nothing to choose the best model by; mend the field domain"
        )
    return Data(train, held, last, scale, notes)


def synthetic_ratings(*, count: int = 600, seed: int = 0) -> Data:
    """Made-up texts rated by the words they hold; seconds on any machine."""
    if count < 5:
        raise UserError(
            f"config key 'data': synthetic_ratings() needs count of 5 or more, not {count}"
        )
    records = synthetic.rated_texts(count, seed=seed)
    fifth = count // 5
    return Data(
        list(records[2 * fifth :]),
        list(records[:fifth]),
        list(records[fifth : 2 * fifth]),
        (-4, 4),
        [],
    )


def fold(loaded: Data, line: str) -> Data:
    """All records dealt anew: of "i/k", part i of k is judged, the next one validates, the others train.

    Raises: UserError if `line` says otherwise, or there are fewer documents than parts.
    """
    matched = re.fullmatch(r"(\d+)/(\d+)", line)
    place, count = map(int, matched.groups()) if matched else (0, 0)
    if not place < count or count < 3:
        raise UserError(
            f"config key 'fold': write the place and the number of parts, such as '0/5' (3 or more), not {line!r}"
        )
    everything = [*loaded.train, *loaded.validation, *loaded.test]
    try:
        part = splits.folds(everything, count, seed=0)
    except ValueError as error:
        raise UserError(f"config key 'fold': {line!r}: {error}") from error
    judged, validating = part == place, part == (place + 1) % count
    take = lambda which: [r for r, taken in zip(everything, which, strict=True) if taken]
    return loaded._replace(
        train=take(~judged & ~validating), validation=take(validating), test=take(judged)
    )


DATA = {f.__name__: f for f in (human_ratings, file, synthetic_ratings)}

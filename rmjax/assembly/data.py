"""The `data` line of a config: records in three splits, the same shape whatever the source."""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from rmjax import assets
from rmjax.data import formats, prepared, sources, splits, synthetic
from rmjax.data.builders import human_ratings as builder
from rmjax.data.records import KINDS, Data, Record
from rmjax.errors import UserError


def human_ratings(*, domains: str = "all", part: str = "") -> Data:
    """Texts with 15 to 20 human ratings each (Hutto & Gilbert 2014).

    domains: "movie", "amazon", "nyt", "tweets", several joined by "+", or "all": those to train and choose on.
      The test split always holds all four, so that agreement across domains is seen.
    part: "0/2" and "1/2" train on halves of the training documents that have none in common, as a proxy and a gold
      reward should; "": on all.
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
    train: list[Record] = [r for r in found["train"] if r.domain in chosen]
    if part:
        place, count = _part(part, "data", least=2)
        train = [r for r in train if splits.part_of(r, count) == place]
    return Data(
        train,
        list(found["validation"]),
        list(found["test"]),
        (-4, 4),
        [],
    )


def file(
    *,
    path: str,
    validation: str = "",
    test: str = "",
    low: int = 0,
    high: int = 0,
    rating: str = "",
    classes: str = "",
    domain: str = "",
) -> Data:
    """Your own JSONL or Parquet file, local or hf://; rmjax/data/formats.py lists the fields.

    validation, test: files of those splits; without both, documents of `path` are split 8 : 1 : 1 by hash.
    low, high: the rating scale, for losses over classes; left out where ratings are not whole numbers.
    rating: the attribute that is a text's rating; else its own rating, or the mean of its attributes.
    classes: names of the labels in order, joined by commas; else those of `path`, sorted.
    domain: of records that do not name theirs; else the stem of `path`, for the other files too.
    """
    domain = domain or PurePosixPath(path).name.split(".")[0]
    read = lambda where, names: sources.read(where, domain, rating, names)
    return _loaded("file", read, (path, validation, test), (low, high), classes)


def tfds(
    *,
    name: str,
    split: str = "train",
    validation: str = "",
    test: str = "",
    data_dir: str = "",
    text: str = "",
    rating: str = "",
    low: int = 0,
    high: int = 0,
    classes: str = "",
) -> Data:
    """A TFDS data set that lies prepared as array_record.

    name: as TFDS has it, "ag_news_subset" or "glue/sst2". data_dir: where it lies; default: TFDS's own.
    split, validation, test: its splits; without the last two, documents of `split` are divided 8 : 1 : 1 by hash.
    text, rating: its fields that are so; others keep the names that rmjax/data/formats.py lists.
    low, high, classes: as of file().
    """
    renamed = {old: new for old, new in ((text, "text"), (rating, "rating")) if old}
    reading = lambda names: formats.Reading(name.split("/")[0], classes=names)
    read = lambda part, names: sources.collect(
        f"{name}, {part}", prepared.rows(name, part, data_dir, renamed), reading(names)
    )
    return _loaded("tfds", read, (split, validation, test), (low, high), classes)


def _loaded(
    name: str,
    read: Callable[[str, tuple[str, ...]], sources.Read],
    places: tuple[str, str, str],
    limits: tuple[int, int],
    classes: str,
) -> Data:
    """The three splits, each read from its place, or all from the first where the others are not given."""
    first, validation, test = places
    if bool(validation) != bool(test):
        raise UserError(f"config key 'data': {name}() needs both validation= and test=, or neither")
    if limits[0] > limits[1]:
        low, high = limits
        raise UserError(f"config key 'data': {name}(): low={low} is not below high={high}")
    reads = [read(first, tuple(c.strip() for c in classes.split(",") if c.strip()))]
    reads += [read(place, reads[0].classes) for place in (validation, test) if place]
    if test:
        parts = [list(one.records) for one in reads]
    else:
        names = splits.assign(reads[0].records)
        parts = [
            [r for r, n in zip(reads[0].records, names, strict=True) if n == s]
            for s in splits.SPLITS
        ]
    kinds = sorted({KINDS[type(r)] for part in parts for r in part})
    if len(kinds) > 1 or len({one.classes for one in reads}) > 1:
        raise UserError(
            f"config key 'data': the files mix {' and '.join(kinds)}, or classes and ratings; give files of one kind"
        )
    _check(parts, first, validation)
    names = reads[0].classes
    scale = (0, len(names) - 1) if names else limits if limits[0] != limits[1] else None
    train, held, last = parts
    return Data(train, held, last, scale, [n for one in reads for n in one.notes], names)


def _check(parts: list[list[Record]], first: str, validation: str) -> None:
    """Raises: UserError if a split is empty, or none of validation has a domain of training."""
    for part, name in zip(parts, splits.SPLITS, strict=True):
        if not part:
            raise UserError(
                f"config key 'data': no record of {first} falls into {name} (validation and test are a tenth of the "
                "documents each); give more documents, or a file for each: validation='...', test='...'"
            )
    if not {r.domain for r in parts[0]} & {r.domain for r in parts[1]}:
        raise UserError(
            f"config key 'data': no record of {validation or first} has a domain that is trained on, so there is "
            "nothing to choose the best model by; mend the field domain"
        )


def synthetic_ratings(*, count: int = 600, seed: int = 0) -> Data:
    """Made-up texts rated by the words they hold; seconds on any machine."""
    return _fifths(
        "synthetic_ratings", count, lambda: synthetic.rated_texts(count, seed=seed), (-4, 4)
    )


def synthetic_pairs(*, count: int = 300, seed: int = 0) -> Data:
    """Made-up prompts with two answers each, the better one chosen."""
    return _fifths("synthetic_pairs", count, lambda: synthetic.pairs(count, seed=seed), None)


def synthetic_logs(*, count: int = 300, seed: int = 0) -> Data:
    """Made-up logged answers to prompts, with their rewards and log-probabilities."""
    return _fifths("synthetic_logs", count, lambda: synthetic.logs(count, seed=seed), None)


def sums(*, count: int = 2000, most: int = 99, seed: int = 0) -> Data:
    """Additions of two numbers from 0 to `most` as prompts, and their answers."""
    return _fifths("sums", count, lambda: synthetic.sums(count, most, seed=seed), None)


def _fifths(
    name: str, count: int, make: Callable[[], Sequence[Record]], scale: tuple[int, int] | None
) -> Data:
    """A fifth of the records to validate, one to evaluate on, the others to train."""
    if count < 5:
        raise UserError(f"config key 'data': {name}() needs count of 5 or more, not {count}")
    try:
        records = make()
    except ValueError as error:
        raise UserError(f"config key 'data': {name}(): {error}") from error
    fifth = count // 5
    return Data(
        list(records[2 * fifth :]),
        list(records[:fifth]),
        list(records[fifth : 2 * fifth]),
        scale,
        [],
    )


def fold(loaded: Data, line: str) -> Data:
    """All records dealt anew: of "i/k", part i of k is evaluated, the next one validates, the others train.

    Raises: UserError if `line` says otherwise, or there are fewer documents than parts.
    """
    place, count = _part(line, "fold", least=3)
    everything = [*loaded.train, *loaded.validation, *loaded.test]
    try:
        part = splits.folds(everything, count, seed=0)
    except ValueError as error:
        raise UserError(f"config key 'fold': {line!r}: {error}") from error
    evaluated, validating = part == place, part == (place + 1) % count
    take = lambda which: [r for r, taken in zip(everything, which, strict=True) if taken]
    return loaded._replace(
        train=take(~evaluated & ~validating), validation=take(validating), test=take(evaluated)
    )


def _part(line: str, key: str, *, least: int) -> tuple[int, int]:
    """The place and the number of parts that "place/number" says."""
    matched = re.fullmatch(r"(\d+)/(\d+)", line)
    place, count = map(int, matched.groups()) if matched else (0, 0)
    if not place < count or count < least:
        raise UserError(f"config key '{key}': write the place and the number of parts, such as '0/{least + 2}' "
                        f"({least} or more), not {line!r}")  # fmt: skip
    return place, count


DATA = {
    f.__name__: f
    for f in (human_ratings, file, tfds, synthetic_ratings, synthetic_pairs, synthetic_logs, sums)
}

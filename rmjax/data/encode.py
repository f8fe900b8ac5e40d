"""Records of any kind to token ids, with all that losses may name of them.

Legend: N texts, M scored places, C classes, A attributes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np

from rmjax.data import chat
from rmjax.data.examples import Examples, shares
from rmjax.data.records import Pair, Process, Prompt, Ranking, RatedText, Record
from rmjax.data.tokenizer import Group, Tokenizer
from rmjax.errors import UserError


class Encoded(NamedTuple):
    """Examples, and what to tell of texts that were cut or left out."""

    examples: Examples
    notes: list[str]


class Reader(NamedTuple):
    """How a model reads: what decides the tokens of a record.

    template: renders prompts as conversations; None: as plain lines.
    share: whether texts of a group keep what they begin with alike once.
    """

    tokenizer: Tokenizer
    template: chat.Template | None
    max_length: int
    share: bool


class Known(NamedTuple):
    """What is known of a data set's ratings: lowest and highest where they are whole numbers, and attributes' names."""

    scale: tuple[int, int] | None = None
    attributes: tuple[str, ...] = ()


UNKNOWN = Known()


def encode(
    records: Sequence[Record], reader: Reader, known: Known = UNKNOWN, *, train: bool = False
) -> Encoded:
    """Examples of records of one kind, in their order: one text of a rated text, two of a pair (chosen first), one a
    completion of a ranking, one of a process.

    train: leave out groups that truncation made identical and steps that do not fit; else every record stays.
    Raises: UserError if nothing is left, or naming the first rating outside the scale, or on steps that do not fit.
    """
    first = records[0]
    if isinstance(first, RatedText):
        return _rated(cast(Sequence[RatedText], records), reader, known)
    if isinstance(first, Process):
        return _processes(cast(Sequence[Process], records), reader, train)
    return _groups(cast(Sequence[Pair | Ranking], records), reader, train)


def groups(
    reader: Reader, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]
) -> tuple[list[Group], int]:
    """Token ids of each prompt and its completions, rendered as the reader does, and how many of these were cut."""
    made: dict[int, Group] = {}
    cut = 0
    for rendered in (False, True):  # a text without a prompt is no conversation
        at = [i for i, p in enumerate(prompts) if bool(p and reader.template) == rendered]
        texts = [[chat.render(prompts[i], c, reader.template) for c in completions[i]] for i in at]
        heads, tails = [t[0][0] for t in texts], [[c for _, c in t] for t in texts]
        found, more = reader.tokenizer.encode_groups(heads, tails, reader.max_length, rendered)
        made |= dict(zip(at, found, strict=True))
        cut += more
    return [made[i] for i in range(len(prompts))], cut


def _tokens(
    reader: Reader, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]
) -> tuple[list[list[np.ndarray]], int]:
    """Every completion as a whole text, its prompt before it, and how many were cut."""
    found, cut = groups(reader, prompts, completions)
    return [[np.concatenate([g.prompt, c]) for c in g.completions] for g in found], cut


def _rated(records: Sequence[RatedText], reader: Reader, known: Known) -> Encoded:
    made, cut = _tokens(reader, [r.prompt for r in records], [[r.text] for r in records])
    panels = [r.ratings for r in records]
    paneled = bool(panels) and all(panels)
    per_text = {"rating": np.array([r.rating for r in records], np.float32)}
    if known.scale is not None:
        per_text |= _on_scale(records, known.scale, paneled)
    if known.attributes:
        per_text |= _attributes(records, known.attributes)
    # Answers to one prompt are compared with each other, texts without one with all of their domain.
    kin = {key: i for i, key in enumerate(sorted({_kin(r) for r in records}))}
    examples = Examples(
        tokens=[text for (text,) in made],
        ids=[r.id for r in records],
        weight=np.array([r.weight for r in records], np.float32),
        kin=np.array([kin[_kin(r)] for r in records]),
        per_text=per_text,
        votes=shares(panels, np.unique(np.concatenate(panels))) if paneled else None,
        share=reader.share and any(r.prompt for r in records),
    )
    return Encoded(examples, _note(cut, "texts", reader.max_length))


def _kin(record: RatedText) -> tuple[str, str]:
    return record.domain, str(record.prompt)


def _on_scale(
    records: Sequence[RatedText], scale: tuple[int, int], paneled: bool
) -> dict[str, np.ndarray]:
    """label (the rating rounded half up, from 0), probability (the rating on [0, 1]) and, of panels, shares [N, C]."""
    low, high = scale
    for record in records:
        if any(not low <= v <= high for v in (record.rating, *record.ratings)):
            raise UserError(
                f"text {record.id!r} is rated outside the scale {low}..{high}; set low and high"
            )
    rating = np.array([r.rating for r in records], np.float32)
    found = {
        "label": np.floor(rating - low + 0.5).astype(np.int32),
        "probability": (rating - low) / (high - low),
    }
    if paneled:
        classes = np.arange(low, high + 1, dtype=np.float64)
        found["shares"] = shares([np.floor(r.ratings) for r in records], classes)
    return found


def _attributes(records: Sequence[RatedText], names: Sequence[str]) -> dict[str, np.ndarray]:
    """attribute_ratings and attribute_mask [N, A]: which attributes a text is rated on, and how."""
    own = [dict(r.attributes) for r in records]
    return {
        "attribute_ratings": np.array([[o.get(n, 0.0) for n in names] for o in own], np.float32),
        "attribute_mask": np.array([[n in o for n in names] for o in own]),
    }


def _groups(records: Sequence[Pair | Ranking], reader: Reader, train: bool) -> Encoded:
    completions = lambda r: (r.chosen, r.rejected) if isinstance(r, Pair) else r.completions
    made, cut = _tokens(reader, [r.prompt for r in records], list(map(completions, records)))
    differ = lambda texts: any(not np.array_equal(t, texts[0]) for t in texts[1:])
    keep = [i for i, texts in enumerate(made) if not train or differ(texts)]
    kind = "pairs" if isinstance(records[0], Pair) else "rankings"
    if not keep:
        raise UserError(
            f"all {len(records)} {kind} are identical within max_length={reader.max_length} tokens; raise it"
        )
    notes = _note(cut, "completions", reader.max_length)
    if gone := len(records) - len(keep):
        notes.append(f"{gone} {kind} dropped: identical within {reader.max_length} tokens")
    kept, sizes = [records[i] for i in keep], [len(made[i]) for i in keep]
    ends = np.cumsum(sizes)
    spread: Callable = lambda values: np.repeat(np.array(values), sizes)
    examples = Examples(
        tokens=[t for i in keep for t in made[i]],
        ids=[r.id for r in kept for _ in completions(r)],
        weight=spread([r.weight for r in kept]).astype(np.float32),
        kin=spread(range(len(kept))),
        per_text=_ratings(kept),
        given=_given(kept),
        fixed=[np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)],
        share=reader.share,
    )
    return Encoded(examples, notes)


def _ratings(records: Sequence[Pair | Ranking]) -> dict[str, np.ndarray]:
    own = [r.ratings for r in records if isinstance(r, Ranking)]
    return {"rating": np.concatenate(own).astype(np.float32)} if own else {}


def _given(records: Sequence[Pair | Ranking]) -> dict[str, np.ndarray] | None:
    """What is known of given pairs; None of rankings, whose pairs are formed from ratings."""
    pairs = [r for r in records if isinstance(r, Pair)]
    if not pairs:
        return None
    found = {}
    for name, field in (("margins", "margin"), ("target", "target")):
        values = [getattr(p, field) for p in pairs]
        if all(v is not None for v in values):
            found[name] = np.array(values, np.float32)
    return found


def _processes(records: Sequence[Process], reader: Reader, train: bool) -> Encoded:
    made = _steps(records, reader)
    labels = [r.labels[: len(ends)] for r, (_, ends) in zip(records, made, strict=True)]
    lost = sum(len(r.labels) for r in records) - sum(map(len, labels))
    if lost and not train:
        raise UserError(
            f"{lost} steps lie beyond max_length={reader.max_length} tokens, so the model cannot judge them; "
            "shorten these solutions, or use a model trained with a larger max_length"
        )
    examples = Examples(
        tokens=[tokens for tokens, _ in made],
        ids=[r.id for r in records],
        weight=np.array([r.weight for r in records], np.float32),
        kin=np.arange(len(records)),
        per_text={"probability": np.concatenate(labels).astype(np.float32)},
        ends=[ends for _, ends in made],
    )
    notes = [f"{lost} steps left out: they do not fit {reader.max_length} tokens"] if lost else []
    return Encoded(examples, notes)


def _steps(records: Sequence[Process], reader: Reader) -> list[tuple[np.ndarray, np.ndarray]]:
    """A prompt with its steps, a line each, as one text, and the place of each step's last token.

    Steps that do not fit are left out from the end. No template: it knows answers, not steps.
    """
    prompts = [chat.render(r.prompt, "", None)[0] for r in records]
    lines = [[f"{step}\n" for step in r.steps] for r in records]
    groups, _ = reader.tokenizer.encode_groups(prompts, lines, reader.max_length)
    found = []
    for prompt, steps in groups:
        ends = len(prompt) - 1 + np.cumsum([len(step) for step in steps])
        kept = ends[ends < reader.max_length]
        found.append((np.concatenate([prompt, *steps])[: kept[-1] + 1], kept))
    return found


def _note(cut: int, what: str, max_length: int) -> list[str]:
    return [f"{cut} {what} cut at {max_length} tokens"] if cut else []

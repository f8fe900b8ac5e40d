"""Records of any kind to token ids, with all that losses may name of them.

Legend: N texts, M scored places, C classes, A attributes.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np

from rmjax.data import chat
from rmjax.data.examples import Examples, shares
from rmjax.data.records import Messages, Pair, Process, Prompt, Ranking, RatedText, Record
from rmjax.data.tokenizer import Halves, Layout, Tokenizer
from rmjax.errors import UserError

Counts = collections.Counter[str]  # what happened to texts, in words that a number precedes


class Encoded(NamedTuple):
    """Examples, and how many texts were cut, left out or read in a way that one would want to know."""

    examples: Examples
    counts: Counts

    @property
    def notes(self) -> list[str]:
        """A line for each count."""
        return told(self.counts)


def told(counts: Counts) -> list[str]:
    """Counts as lines of text."""
    return [f"{count:,} {what}" for what, count in counts.items() if count]


class Reader(NamedTuple):
    """How a model reads: what decides the tokens of a record, and where its score is read.

    template: renders prompts as conversations; None: as plain lines.
    share: whether texts of a group keep what they begin with alike once.
    layout: how prompt and completion stand in one text (`rendered` is set for each text anew).
    types: whether the second of two segments has token type 1.
    unscored: the score is read at the last token that is another than this one; None: at the last token.
    """

    tokenizer: Tokenizer
    template: chat.Template | None
    max_length: int
    share: bool
    layout: Layout = Layout()
    types: bool = False
    unscored: int | None = None

    def rule(self) -> str:
        """Which token is scored, in words."""
        name = None if self.unscored is None else self.tokenizer.token(self.unscored)
        if name is None:
            return "scored at the last token"
        (ends,), _ = groups(self, ["?"], [["!"]])
        last = ends[0].whole[-1:].tolist() == [self.unscored]
        return f"scored at the {'token before' if last else 'last token that is not'} {name}"


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
    Raises: UserError if nothing is left, or naming the first rating outside the scale or text without a token, or on
      steps that do not fit.
    """
    first = records[0]
    if isinstance(first, RatedText):
        return _rated(cast(Sequence[RatedText], records), reader, known)
    if isinstance(first, Process):
        return _processes(cast(Sequence[Process], records), reader, train)
    return _groups(cast(Sequence[Pair | Ranking], records), reader, train)


def conversations(found: Sequence[Messages], reader: Reader) -> Encoded:
    """Whole conversations as texts, whoever speaks last and whatever the messages hold."""
    template, escape = reader.template, reader.layout.escaped
    write = chat.lines if template is None else _rendering(template, escape)
    layout = reader.layout._replace(rendered=template is not None, cut_front=True)
    texts = [[("", write(messages))] for messages in found]
    made, cut = reader.tokenizer.encode_groups(texts, reader.max_length, layout)
    counts = collections.Counter({f"conversations cut at {reader.max_length} tokens": cut})
    counts += _spelled(reader, [m[1] for messages in found for m in messages])
    counts += _dropped(found, template)
    whole = [halves.whole for (halves,) in made]
    one = np.ones(len(found), np.float32)
    return Encoded(
        _placed(Examples(whole, [""] * len(found), one, np.zeros(len(found)), {}), reader), counts
    )


def _rendering(template: chat.Template, escape: bool) -> Callable[[Messages], str]:
    return lambda messages: template.render(messages, generation=False, escape=escape)


def groups(
    reader: Reader, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]]
) -> tuple[list[list[Halves]], Counts]:
    """Token ids of each prompt with each of its completions, rendered as the reader does.

    Returns also how many completions were cut, texts spell special tokens, and prompts hold what is not rendered.
    """
    made: dict[int, list[Halves]] = {}
    cut, escape = 0, reader.layout.escaped
    for rendered in (False, True):  # a text without a prompt is no conversation
        at = [i for i, p in enumerate(prompts) if bool(p and reader.template) == rendered]
        texts = [
            [chat.render(prompts[i], c, reader.template, escape=escape) for c in completions[i]]
            for i in at
        ]
        layout = reader.layout._replace(rendered=rendered)
        found, more = reader.tokenizer.encode_groups(texts, reader.max_length, layout)
        made |= dict(zip(at, found, strict=True))
        cut += more
    counts = collections.Counter({f"texts cut at {reader.max_length} tokens": cut})
    counts += _spelled(reader, [c for listed in completions for c in listed])
    counts += _dropped([p for p in prompts if not isinstance(p, str)], reader.template)
    found = [made[i] for i in range(len(prompts))]
    if reader.share:
        less = sum(any(not np.array_equal(h.prompt, g[0].prompt) for h in g) for g in found)
        counts["prompts shared but for their last tokens, which join with a completion"] += less
    return found, counts


def openings(
    reader: Reader, prompts: Sequence[Prompt]
) -> tuple[list[np.ndarray], list[str], Counts]:
    """Token ids of each prompt as it stands before a completion, and the text that this one begins with before its own.

    The latter is white space that a token joins with the first word, and what a template writes between.
    """
    ids: dict[int, np.ndarray] = {}
    lead: dict[int, str] = {}
    for rendered in (False, True):
        at = [i for i, p in enumerate(prompts) if bool(p and reader.template) == rendered]
        template, layout = reader.template, reader.layout._replace(rendered=rendered)
        texts = [
            chat.opening(prompts[i], template, escape=layout.escaped) if prompts[i] else ""
            for i in at
        ]
        found, space = reader.tokenizer.encode_openings(texts, layout)
        ids |= dict(zip(at, found, strict=True))
        more = template.lead if rendered and template is not None else ""
        lead |= {i: s + more for i, s in zip(at, space, strict=True)}
    order = range(len(prompts))
    counts = _dropped([p for p in prompts if not isinstance(p, str)], reader.template)
    return [ids[i] for i in order], [lead[i] for i in order], counts


def _spelled(reader: Reader, texts: Sequence[str]) -> Counts:
    """How many texts spell a special token."""
    names = [name for name in reader.tokenizer.special_tokens if name]
    if not names:
        return collections.Counter()
    pattern = re.compile("|".join(map(re.escape, names)))
    found = [match for text in texts if (match := pattern.search(text))]
    if not found:
        return collections.Counter()
    one = found[0].group()
    read = f"special tokens such as {one}, which are read as special (special_tokens=text: as text)"
    if reader.layout.escaped:
        read = f"special tokens such as {one}, which are read as text"
    return collections.Counter({f"texts spell {read}": len(found)})


def _dropped(found: Sequence[Messages], template: chat.Template | None) -> Counts:
    gone = sum(chat.dropped(messages, template) for messages in found)
    what = "conversations have tools, tool calls, reasoning or the like that is not rendered"
    return collections.Counter({what: gone})


def _texts(
    reader: Reader,
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[str]],
    ids: Sequence[str],
) -> tuple[list[list[Halves]], Counts]:
    """As `groups`, of the records `ids`.

    Raises: UserError naming the first record with a text that has no token.
    """
    found, counts = groups(reader, prompts, completions)
    for name, listed in zip(ids, found, strict=True):
        if not all(len(h.prompt) + len(h.completion) for h in listed):
            raise UserError(
                f"record {name!r} holds an empty text, and this model's tokenizer puts no token around it, so there "
                "is nothing to score; leave it out"
            )
    return found, counts


def _placed(examples: Examples, reader: Reader, made: Sequence[Halves] = ()) -> Examples:
    """The examples with the places of their scores, and of their second segments where these have a type."""
    if reader.unscored is not None:
        last = [np.flatnonzero(t != reader.unscored)[-1:] for t in examples.tokens]
        ends = [at if len(at) else np.zeros(1, np.int64) for at in last]
        examples = dataclasses.replace(examples, ends=ends)
    if reader.types and any(h.second is not None for h in made):
        second = [len(h.whole) if h.second is None else h.second for h in made]
        examples = dataclasses.replace(examples, second=np.array(second))
    return examples


def _rated(records: Sequence[RatedText], reader: Reader, known: Known) -> Encoded:
    made, counts = _texts(
        reader, [r.prompt for r in records], [[r.text] for r in records], [r.id for r in records]
    )
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
        tokens=[halves.whole for (halves,) in made],
        ids=[r.id for r in records],
        weight=np.array([r.weight for r in records], np.float32),
        kin=np.array([kin[_kin(r)] for r in records]),
        per_text=per_text,
        votes=shares(panels, np.unique(np.concatenate(panels))) if paneled else None,
        share=reader.share and any(r.prompt for r in records),
    )
    return Encoded(_placed(examples, reader, [halves for (halves,) in made]), counts)


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
    made, counts = _texts(
        reader,
        [r.prompt for r in records],
        list(map(completions, records)),
        [r.id for r in records],
    )
    differ = lambda texts: any(not np.array_equal(t.whole, texts[0].whole) for t in texts[1:])
    keep = [i for i, texts in enumerate(made) if not train or differ(texts)]
    kind = "pairs" if isinstance(records[0], Pair) else "rankings"
    if not keep:
        raise UserError(
            f"all {len(records)} {kind} are identical within max_length={reader.max_length} tokens; raise it"
        )
    gone = len(records) - len(keep)
    counts[f"{kind} dropped: identical within {reader.max_length} tokens"] += gone
    kept, sizes = [records[i] for i in keep], [len(made[i]) for i in keep]
    ends = np.cumsum(sizes)
    spread: Callable = lambda values: np.repeat(np.array(values), sizes)
    examples = Examples(
        tokens=[halves.whole for i in keep for halves in made[i]],
        ids=[r.id for r in kept for _ in completions(r)],
        weight=spread([r.weight for r in kept]).astype(np.float32),
        kin=spread(range(len(kept))),
        per_text=_ratings(kept),
        given=_given(kept),
        fixed=[np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)],
        share=reader.share,
    )
    return Encoded(_placed(examples, reader, [h for i in keep for h in made[i]]), counts)


def _ratings(records: Sequence[Pair | Ranking]) -> dict[str, np.ndarray]:
    own = [r.ratings for r in records if isinstance(r, Ranking)]
    return {"rating": np.concatenate(own).astype(np.float32)} if own else {}


def _given(records: Sequence[Pair | Ranking]) -> dict[str, np.ndarray] | None:
    """What is known of given pairs; None of rankings, whose pairs are formed from ratings."""
    pairs = [r for r in records if isinstance(r, Pair)]
    if not pairs:
        return None
    found = {}
    for name, field in (("margins", "margin"), ("target", "target"), ("tie", "tie")):
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
            f"{lost} steps lie beyond max_length={reader.max_length} tokens, so the model cannot score them; "
            "shorten these solutions, or use a model trained with a larger max_length"
        )
    examples = Examples(
        tokens=[halves.whole for halves, _ in made],
        ids=[r.id for r in records],
        weight=np.array([r.weight for r in records], np.float32),
        kin=np.arange(len(records)),
        per_text={"probability": np.concatenate(labels).astype(np.float32)},
    )
    counts = collections.Counter(
        {f"steps left out: they do not fit {reader.max_length} tokens": lost}
    )
    counts += _spelled(reader, [step for r in records for step in r.steps])
    examples = _placed(examples, reader._replace(unscored=None), [halves for halves, _ in made])
    return Encoded(dataclasses.replace(examples, ends=[ends for _, ends in made]), counts)


def _steps(records: Sequence[Process], reader: Reader) -> list[tuple[Halves, np.ndarray]]:
    """A prompt with its steps, a line each, as one text, and the place of each step's last token.

    The prompt loses its front where the longest step would not fit behind it; then steps that do not fit are left out
    from the end. No template: it knows answers, not steps.
    Raises: UserError naming a record of which no step fits.
    """
    prompts = [chat.opening(r.prompt, None) if r.prompt else "" for r in records]
    lines = [[f"{step}\n" for step in r.steps] for r in records]
    read, found, most = reader.tokenizer, [], reader.max_length
    made = read.encode_lines(prompts, lines, reader.layout)
    for record, (halves, ends) in zip(records, made, strict=True):
        longest = int(np.max(np.diff(ends, prepend=-1)))
        head = read.front(halves.prompt, max(most - longest, 0))
        places = len(head) + ends
        kept = places[places < most]
        if not len(kept):
            raise UserError(
                f"record {record.id!r}: its first step does not fit max_length={most} tokens; raise it, or leave the "
                "record out"
            )
        fits = len(head) + len(halves.completion) <= most
        last = len(halves.completion) if fits else int(kept[-1]) + 1 - len(head)
        second = None if halves.second is None else len(head)
        found.append((Halves(head, halves.completion[:last], second), kept))
    return found

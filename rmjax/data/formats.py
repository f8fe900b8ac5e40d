"""One row of any data set -> a record; its kind is known by its fields.

| fields                                                                 | record                    |
|------------------------------------------------------------------------|---------------------------|
| chosen, rejected; prompt?, margin?, votes?, subset? (RewardBench v1)   | Pair; domain = subset     |
| prompt, completions, one of ratings, ranks (1 is best), best (index)   | Ranking                   |
| prompt, completions of {text, rating}                                  | Ranking                   |
| prompt, steps or completions, labels (true/false, [0, 1], or -1/0/1)   | Process                   |
| TEXT, rating or ratings; prompt?, attributes?                          | RatedText                 |
| TEXT, numeric attributes ({"attributes": {...}}, or any other numbers) | RatedText; their mean, or one by name |
| TEXT alone, or prompt, TEXT; or messages, the last an assistant's        | Text, for language models |
| the same with reward, log_prob or log_probs (one a token); stopped?    | Text, of a log            |
| TEXT, label (words, whole numbers, true/false: a class; 3.8: a rating) | RatedText; rating: place of the class |

TEXT is text, completion, response or sentence; or sentence1 with sentence2, the first of which is the prompt.
A prompt, chosen and rejected are strings, lists of {"role", "content"} or transcripts ("\\n\\nHuman: ...").
Messages may have more (tool_calls, reasoning_content), and a row "tools": chat templates render them in prompts.
Every record may have id, document, domain and weight.
Other numbers of a logged text are no attributes; file(rating='reward') makes its reward a rating, for reward models.
Labels of steps: where a file holds a -1, its labels are good 1, neutral 0, bad -1, and become 1, 1/2, 0.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rmjax.data import conversations, fields
from rmjax.data.fields import Bad
from rmjax.data.records import Pair, Process, Ranking, RatedText, Record, Text
from rmjax.data.splits import normalized

FIELDS = (
    'needs "text", which "rating", "ratings", "label" or numeric attributes may rate; or "chosen" and "rejected"; '
    'or "completions" with "ratings", "ranks" or "best"; or "steps" with "labels" (and "prompt")'
)
TEXTS = ("text", "completion", "response", "sentence", "sentence2")
COMMON = ("id", "document", "domain", "weight", "prompt", "sentence1", "messages", *TEXTS)
LOGGED = ("reward", "log_prob", "log_probs")
REDUCED = "of answers with tool calls, reasoning or the like the text alone is read"


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a row does not say itself.

    domain: of a row without one. rating: the attribute that is the rating; "": the row's own, or the mean.
    classes: names of the classes in order; () where any will do.
    """

    domain: str
    rating: str = ""
    classes: tuple[str, ...] = ()


class Draft(NamedTuple):
    """A record, its class where it has one (rating is then still to be set), and what to count about it.

    record is None where there is nothing to learn from, which `note` then says.
    """

    record: Record | None
    label: str = ""
    note: str = ""


def draft(row: Any, number: int, reading: Reading) -> Draft:
    """Raises: Bad naming the field, or that the fields fit no record or several."""
    if not isinstance(row, Mapping):
        raise Bad("is no JSON object")
    row = {k: v for k, v in row.items() if v is not None}  # Parquet gives absent fields as null
    kinds = {
        "pair": ("chosen", "rejected"),
        "list": ("completions", "steps"),
        "text": (*TEXTS, "messages"),
    }
    found = [kind for kind, names in kinds.items() if any(name in row for name in names)]
    if len(found) != 1:
        raise Bad(FIELDS)
    domain = fields.string(row, "subset", reading.domain) if "pair" in found else reading.domain
    shared = {
        "id": str(row.get("id", number)),
        "domain": fields.string(row, "domain", domain),
        "weight": fields.number(row, "weight", 1.0, lambda v: v >= 0, "a number of at least 0"),
    }
    if "pair" in found:
        return _pair(row, shared)
    if "text" in found:
        return _rated(row, shared, reading)
    return _process(row, shared) if "labels" in row or "steps" in row else _ranking(row, shared)


def _pair(row: Mapping, shared: dict) -> Draft:
    if absent := {"chosen", "rejected"} - {*row}:
        raise Bad(f'field "{absent.pop()}": is missing')
    found = conversations.split(
        *(row.get(k, "") for k in ("prompt", "chosen", "rejected")), tools=row.get("tools")
    )
    margin = fields.number(row, "margin") if "margin" in row else None
    target, tie = _votes(row)
    if found.chosen == found.rejected or not (found.chosen.strip() and found.rejected.strip()):
        return Draft(None, note="pairs dropped, empty or identical")
    record = Pair(
        document=_document(row, found.prompt, found.chosen),
        prompt=found.prompt,
        chosen=found.chosen,
        rejected=found.rejected,
        margin=margin,
        target=target,
        tie=tie,
        **shared,
    )
    if found.reduced:
        return Draft(record, note=f"pairs: {REDUCED}")
    return Draft(record, note="pairs differ before their last turn" if found.early else "")


def _votes(row: Mapping) -> tuple[float | None, float | None]:
    """The shares of votes for the chosen text, with half of the ties, and of ties."""
    if "votes" not in row:
        return None, None
    votes = row["votes"]
    listed = isinstance(votes, list | tuple) and len(votes) in (2, 3)
    if not listed or not all(fields.finite(v) and v >= 0 for v in votes) or not sum(votes):
        raise Bad('field "votes": must be [for chosen, for rejected] or [.., .., ties], not all 0')
    ties = sum(votes[2:])
    return (votes[0] + ties / 2) / sum(votes), ties / sum(votes)


def _ranking(row: Mapping, shared: dict) -> Draft:
    prompt = conversations.prompt(row.get("prompt", ""), tools=row.get("tools"))
    texts, ratings = _ranked(row)
    best: dict[str, float] = {}  # of completions that say the same, the best rating
    for text, rating in zip(texts, ratings, strict=True):
        if text.strip():
            best[text] = max(rating, best.get(text, rating))
    if len(set(best.values())) < 2:
        return Draft(None, note="rankings dropped, without two completions of unequal rating")
    document = _document(row, prompt, texts[0])
    record = Ranking(
        document=document,
        prompt=prompt,
        completions=tuple(best),
        ratings=tuple(best.values()),
        **shared,
    )
    less = len(best) < len(texts)
    return Draft(record, note="rankings lost completions, empty or repeated" if less else "")


def _ranked(row: Mapping) -> tuple[list[str], tuple[float, ...]]:
    """The completions of a row and the rating of each, higher is better."""
    texts, count = row["completions"], 0
    if isinstance(texts, list) and texts and all(isinstance(c, Mapping) for c in texts):
        row = {**row, "inner": [c.get("rating") for c in texts]}
        texts = [c.get("text") for c in texts]
    texts, count = _strings(texts, "completions"), len(texts)
    given = [name for name in ("ratings", "ranks", "best", "inner") if name in row]
    if len(given) != 1:
        raise Bad(
            '"completions" need exactly one of "ratings", "ranks", "best", "labels", or {"text", "rating"} each'
        )
    if given == ["best"]:
        best = row["best"]
        if not isinstance(best, int) or isinstance(best, bool) or not 0 <= best < count:
            raise Bad(f'field "best": must be the index of a completion, 0 to {count - 1}')
        return texts, tuple(float(i == best) for i in range(count))
    if given == ["inner"] and not all(fields.finite(v) for v in row["inner"]):
        raise Bad('field "completions": each needs a "rating", a finite number')
    ratings = fields.numbers(row, given[0], count)
    return texts, tuple(count - r for r in ratings) if given == ["ranks"] else ratings


def _process(row: Mapping, shared: dict) -> Draft:
    others = [name for name in ("ratings", "ranks", "best") if name in row]
    if others or ("steps" in row) == ("completions" in row):
        raise Bad(
            '"labels" belong to either "steps" or "completions", without "ratings", "ranks" or "best"'
        )
    name = "steps" if "steps" in row else "completions"
    steps = _strings(row[name], name)
    if not all(step.strip() for step in steps):
        raise Bad(f'field "{name}": holds an empty step')
    listed = row.get("labels")
    if isinstance(listed, list):
        listed = [int(v) if isinstance(v, bool) else v for v in listed]
    labels = fields.numbers({"labels": listed}, "labels", len(steps))
    if not all(-1 <= v <= 1 for v in labels):
        raise Bad('field "labels": must be true or false, from 0 to 1, or -1, 0 and 1')
    prompt = conversations.prompt(row.get("prompt", ""), tools=row.get("tools"))
    document = _document(row, prompt, steps[0])
    return Draft(
        Process(document=document, prompt=prompt, steps=tuple(steps), labels=labels, **shared)
    )


def _rated(row: Mapping, shared: dict, reading: Reading) -> Draft:
    row, reduced = _answered(row)
    names = [name for name in TEXTS if name in row]
    if len(names) > 1:
        raise Bad(f"has {' and '.join(names)}, of which one is the text; leave out the other")
    chosen, own = reading.rating not in ("", "rating"), {"rating", "ratings", "label"} & set(row)
    logged = not (chosen or own or "attributes" in row) and any(name in row for name in LOGGED)
    # A policy may say nothing but that it stops.
    text = (fields.string if logged else fields.filled)(row, names[0])
    head = "sentence1" if names == ["sentence2"] else "prompt"
    prompt = conversations.prompt(row.get(head, ""), head, tools=row.get("tools"))
    document = _document(row, prompt, text)
    if logged:
        log = _logged(row)
        if not text and not (prompt and log["stopped"]):
            raise Bad(f'field "{names[0]}": is empty')
        return Draft(
            Text(document=document, text=text, prompt=prompt, **log, **shared), note=reduced
        )
    if own and not chosen and {"log_prob", "log_probs"} & set(row):
        raise Bad(f'"log_prob" is of a logged answer, whose "reward" stands for {min(own)!r}')
    ratings = fields.numbers(row, "ratings") if "ratings" in row else ()
    attributes = _attributes(row, reading)
    if not (attributes or chosen or own):
        return Draft(Text(document=document, text=text, prompt=prompt, **shared), note=reduced)
    rating, label = _rating(row, ratings, attributes, reading)
    record = RatedText(
        document=document,
        text=text,
        rating=rating,
        ratings=ratings,
        prompt=prompt,
        attributes=tuple(attributes.items()),
        **shared,
    )
    mean = len(attributes) > 1 and not (chosen or own)
    rated = f"texts rated by the mean of {', '.join(attributes)}; rating='...' takes one of these"
    return Draft(record, label, rated if mean else reduced)


def _logged(row: Mapping) -> dict[str, Any]:
    """What a log says of an answer, as the fields of a Text."""
    if "log_prob" in row and "log_probs" in row:
        raise Bad('has "log_prob" and "log_probs", which is their sum; leave out one')
    found: dict[str, Any] = {"stopped": row.get("stopped", True)}
    if not isinstance(found["stopped"], bool):
        raise Bad(f'field "stopped": must be true or false, not {found["stopped"]!r}')
    nats = lambda v: v <= 0
    if "reward" in row:
        found["reward"] = fields.number(row, "reward")
    if "log_prob" in row:
        found["log_prob"] = fields.number(row, "log_prob", None, nats, "nats, 0 or below")
    if "log_probs" in row:
        found["log_probs"] = fields.numbers(row, "log_probs")
        if not found["log_probs"] or not all(map(nats, found["log_probs"])):
            raise Bad('field "log_probs": must be the nats of each token, 0 or below')
        found["log_prob"] = math.fsum(found["log_probs"])
    return found


def _answered(row: Mapping) -> tuple[Mapping, str]:
    """A conversation under "messages" as a prompt and its answer, the assistant's last message, and what to count."""
    if "messages" not in row:
        return row, ""
    if any(name in row for name in ("prompt", "sentence1", *TEXTS)):
        raise Bad('"messages" are prompt and answer in one; leave out the other texts')
    found = conversations.prompt(row["messages"], "messages")
    if isinstance(found, str) or len(found) < 2 or found[-1][0] != "assistant":
        raise Bad(
            'field "messages": must end with an answer of the "assistant" to messages before it'
        )
    _, content, *more = found[-1]
    reduced = f"texts: {REDUCED}" if more else ""
    before = row["messages"][: len(found) - 1]
    return {**row, "prompt": before, "completion": content}, reduced


def _attributes(row: Mapping, reading: Reading) -> dict[str, float]:
    """The numbers a text is rated by: those under "attributes", or where it has no rating of its own all others."""
    listed = row.get("attributes")
    if listed is None:
        own = any(name in row for name in ("rating", "ratings", "label"))
        if own and reading.rating in ("", "rating"):
            return {}
        names = row.keys() - {*COMMON, "rating", "ratings", "label"}
        listed = {name: row[name] for name in names if fields.finite(row[name])}
    if not isinstance(listed, Mapping) or not all(fields.finite(v) for v in listed.values()):
        raise Bad('field "attributes": must be an object of numbers')
    return {name: float(listed[name]) for name in sorted(listed)}


def _rating(
    row: Mapping, ratings: tuple[float, ...], attributes: Mapping[str, float], reading: Reading
) -> tuple[float, str]:
    """The rating of a text and "", or 0 and its class."""
    if reading.rating not in ("", "rating"):
        if reading.rating not in attributes:
            there = ", ".join(attributes) or "none"
            raise Bad(f'field "{reading.rating}": is no number of this record; there are {there}')
        return attributes[reading.rating], ""
    if "rating" in row:
        return fields.number(row, "rating"), ""
    if ratings:
        return sum(ratings) / len(ratings), ""
    if "label" in row:
        return _label(row["label"], reading)
    if not attributes:
        raise Bad('field "ratings": is empty')
    return sum(attributes.values()) / len(attributes), ""


def _label(value: Any, reading: Reading) -> tuple[float, str]:
    if isinstance(value, float) and fields.finite(value):
        return value, ""
    if not isinstance(value, str | int) or not str(value):
        raise Bad(f'field "label": must be a class or a finite number, not {value!r}')
    if reading.classes and str(value) not in reading.classes:
        raise Bad(f'field "label": {value!r} is none of the classes {", ".join(reading.classes)}')
    return 0.0, str(value)


def _strings(values: Any, field: str) -> list[str]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
        raise Bad(f'field "{field}": must be a non-empty list of strings')
    return values


def _document(row: Mapping, prompt: Any, text: str) -> str:
    return str(row.get("document", normalized(prompt) or normalized(text)))

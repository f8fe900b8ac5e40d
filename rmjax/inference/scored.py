"""What is scored: a text, a prompt with its completion, a conversation, or a solution in steps; from JSON to scores.

Legend: S seeds, T steps.
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from rmjax.data import conversations, encode
from rmjax.data.fields import Bad
from rmjax.data.formats import TEXTS
from rmjax.data.records import Messages, Process, RatedText
from rmjax.inference import scoring

Scored = RatedText | Messages | Process


def parsed(row: dict[str, Any], name: str, kind: str) -> Scored:
    """What is scored of one line.

    name: of the record, in errors. kind: of the model, as of `Scorer`.
    Raises: Bad where it is nothing that such a model scores.
    """
    tools = row.get("tools")
    if kind == "processes":
        steps = row.get("steps") or [""]
        if not isinstance(steps, list) or not all(isinstance(s, str) and s.strip() for s in steps):
            raise Bad(
                'needs "steps", a list of strings, none of them empty (and "prompt"): this is a process model, which '
                "scores the steps of a solution"
            )
        prompt = conversations.prompt(row.get("prompt", ""), tools=tools)
        return Process(name, "", "", prompt, tuple(steps), (0.0,) * len(steps))
    if "messages" in row:
        if "prompt" in row or any(field in row for field in TEXTS):
            raise Bad('"messages" are prompt and completion in one; leave out the other texts')
        found = conversations.prompt(row["messages"], "messages", tools=tools)
        if isinstance(found, str) or not found:
            raise Bad('field "messages": must be a list of {"role", "content"} messages')
        *before, last = found
        answered = last[0] == "assistant" and len(last) == 2 and before
        return RatedText(name, "", "", last[1], 0.0, prompt=found[:-1]) if answered else found
    given = [field for field in TEXTS if field in row]
    if len(given) != 1 or not isinstance(row[given[0]], str):
        raise Bad(
            'needs a string in field "text", "prompt" and "completion" (or "response"), or "messages": this model '
            "scores texts"
        )
    prompt = conversations.prompt(row.get("prompt", ""), tools=tools)
    return RatedText(name, "", "", row[given[0]], 0.0, prompt=prompt)


def scores(
    scorer: scoring.Scorer, found: Sequence[Scored]
) -> tuple[list[np.ndarray], encode.Counts]:
    """The scores of each line [S], or of its steps [S, T], and what happened to texts as they were read."""
    if scorer.kind == "processes":
        made = scorer.scored([p for p in found if isinstance(p, Process)])
        own = made.scores.swapaxes(0, 1)
        steps = [len(p.steps) for p in found if isinstance(p, Process)]
        return [s[:, :n] for s, n in zip(own, steps, strict=True)], made.counts
    by_place: dict[int, np.ndarray] = {}
    counts: encode.Counts = collections.Counter()
    for kind in (RatedText, tuple):
        at = [i for i, one in enumerate(found) if isinstance(one, kind)]
        if at:
            asked: Any = [found[i] for i in at]
            made = scorer.scored(asked) if kind is RatedText else scorer.conversations(asked)
            by_place |= dict(zip(at, made.scores.T, strict=True))
            counts += made.counts
    return [by_place[i] for i in range(len(found))], counts

"""Prompts and answers given as text, as messages, or as a transcript ("\\n\\nHuman: ...\\n\\nAssistant: ...")."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rmjax.data.fields import Bad
from rmjax.data.records import Messages, Prompt

ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


class Split(NamedTuple):
    """A prompt and two answers to it; early: whether the two conversations part before their last turn."""

    prompt: Prompt
    chosen: str
    rejected: str
    early: bool


def prompt(value: Any, field: str = "prompt") -> Prompt:
    """Text as it is; messages, or a transcript, as messages, without an empty last turn.

    Raises: Bad if it is none of these.
    """
    found = _parsed(value, field)
    if isinstance(found, str):
        return found
    return found[:-1] if found and not found[-1][1].strip() else found


def split(given: Any, chosen: Any, rejected: Any) -> Split:
    """What both sides begin with joins the prompt, up to an answer's start; the rest is the answers.

    An answer of several turns is the text of the first, then "role: content" lines.
    Raises: Bad naming the field.
    """
    head = prompt(given)
    sides = _parsed(chosen, "chosen"), _parsed(rejected, "rejected")
    if isinstance(sides[0], str) and isinstance(sides[1], str):
        return Split(head, sides[0], sides[1], False)
    better, worse = (_turns(side, "assistant") for side in sides)
    count = _shared(better, worse)
    shared = better[:count]
    before = _turns(head, "user")
    contents = lambda turns: [content for _, content in turns]
    if before and contents(before) == contents(shared)[-len(before) :]:
        before = ()  # both sides repeat the prompt
    rest = better[count:], worse[count:]
    return Split(
        before + shared, answer(rest[0]), answer(rest[1]), any(len(turns) > 1 for turns in rest)
    )


def answer(turns: Messages) -> str:
    """The text of an answer: its first turn without the role, further ones as lines; "" if it ends in silence."""
    if not turns or not turns[-1][1].strip():
        return ""
    (role, content), *further = turns
    lines = [content if role == "assistant" else f"{role}: {content}"]
    return "\n".join(lines + [f"{role}: {content}" for role, content in further])


def _shared(better: Messages, worse: Messages) -> int:
    """How many turns open both, a last one of each left out; then back to where an answer begins."""
    same = itertools.takewhile(
        lambda pair: pair[0] == pair[1], zip(better[:-1], worse[:-1], strict=False)
    )
    count = sum(1 for _ in same)
    while count and any(len(t) > count and t[count][0] != "assistant" for t in (better, worse)):
        count -= 1
    return count


def _turns(value: Prompt, role: str) -> Messages:
    if isinstance(value, str):
        return ((role, value),) if value else ()
    return value


def _parsed(value: Any, field: str) -> Prompt:
    if isinstance(value, str):
        return _transcript(value) or value
    well = isinstance(value, list) and all(
        isinstance(m, Mapping)
        and isinstance(m.get("role"), str)
        and isinstance(m.get("content"), str)
        for m in value
    )
    if not well:
        raise Bad(f'field "{field}": must be a string or a list of {{"role", "content"}} messages')
    return tuple((m["role"], m["content"]) for m in value)


def _transcript(text: str) -> Messages:
    """The turns of a transcript, which opens with a person and holds an answer; () of any other text."""
    first, *parts = _TURN.split(text)
    roles: Sequence[str] = parts[::2]
    if first.strip() or not roles or roles[0] != "Human" or "Assistant" not in roles:
        return ()
    return tuple(
        (ROLES[role], content.strip()) for role, content in zip(roles, parts[1::2], strict=True)
    )

"""Prompts and answers given as text, as messages, or as a transcript ("\\n\\nHuman: ...\\n\\nAssistant: ...")."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rmjax.data.fields import Bad
from rmjax.data.records import TOOLS, Message, Messages, Prompt

ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


class Split(NamedTuple):
    """A prompt and two answers to it.

    early: whether the two conversations part before their last turn.
    reduced: whether an answer had tool calls, reasoning or the like, of which its text alone is kept.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    early: bool
    reduced: bool


def prompt(value: Any, field: str = "prompt", tools: Any = None) -> Prompt:
    """Text as it is; messages, or a transcript, as messages, without an empty last turn.

    tools: what the template is given as `tools`, a list of JSON schemas; None: nothing.
    Raises: Bad if it is none of these.
    """
    found = _parsed(value, field)
    if isinstance(found, str):
        if tools is not None:
            raise Bad('field "tools": belongs to a conversation, so the prompt must be messages')
        return found
    found = found[:-1] if found and _silent(found[-1]) else found
    return found if tools is None else _equipped(found, tools)


def split(given: Any, chosen: Any, rejected: Any, tools: Any = None) -> Split:
    """What both sides begin with joins the prompt, up to an answer's start; the rest is the answers.

    An answer of several turns is the text of the first, then "role: content" lines. tools: as of `prompt`.
    Raises: Bad naming the field.
    """
    head = prompt(given)
    sides = _parsed(chosen, "chosen"), _parsed(rejected, "rejected")
    if isinstance(sides[0], str) and isinstance(sides[1], str):
        return Split(prompt(given, tools=tools), sides[0], sides[1], False, False)
    better, worse = (_turns(side, "assistant") for side in sides)
    count = _shared(better, worse)
    shared = better[:count]
    before = _turns(head, "user")
    contents = lambda turns: [turn[1] for turn in turns]
    if before and contents(before) == contents(shared)[-len(before) :]:
        before = ()  # both sides repeat the prompt
    rest = better[count:], worse[count:]
    asked = before + shared
    return Split(
        asked if tools is None else _equipped(asked, tools),
        answer(rest[0]),
        answer(rest[1]),
        any(len(turns) > 1 for turns in rest),
        any(len(turn) > 2 for turns in rest for turn in turns),
    )


def answer(turns: Messages) -> str:
    """The text of an answer: its first turn without the role, further ones as lines; "" if it ends in silence."""
    if not turns or _silent(turns[-1]):
        return ""
    (role, content, *_), *further = turns
    lines = [content if role == "assistant" else f"{role}: {content}"]
    return "\n".join(lines + [f"{turn[0]}: {turn[1]}" for turn in further])


def _silent(turn: Message) -> bool:
    return len(turn) == 2 and not turn[1].strip()


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
    if not isinstance(value, list):
        raise Bad(f'field "{field}": must be a string or a list of {{"role", "content"}} messages')
    return tuple(_message(m, field) for m in value)


def _message(value: Any, field: str) -> Message:
    """One message, of which what is neither role nor content becomes JSON."""
    wrong = Bad(f'field "{field}": must be a string or a list of {{"role", "content"}} messages')
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise wrong
    rest = {k: v for k, v in value.items() if k not in ("role", "content") and v is not None}
    content = value.get("content")
    if content is None and rest:  # nothing but a tool call
        content = ""
    if isinstance(content, list):
        content = _text(content, field)
    if not isinstance(content, str):
        raise wrong
    more = (json.dumps(rest, ensure_ascii=False, sort_keys=True),) if rest else ()
    return (value["role"], content, *more)


def _text(parts: list, field: str) -> str:
    """The content of a message that is given in parts.

    Raises: Bad if one of them is no text.
    """
    if not all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in parts):
        raise Bad(
            f'field "{field}": a message holds parts that are no text, which no model here reads'
        )
    return "".join(part["text"] for part in parts)


def _equipped(messages: Messages, tools: Any) -> Messages:
    """A conversation that opens with its tools.

    Raises: Bad if they are no list of objects.
    """
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise Bad('field "tools": must be a list of objects')
    if not tools:
        return messages
    return ((TOOLS, "", json.dumps(tools, ensure_ascii=False)), *messages)


def _transcript(text: str) -> Messages:
    """The turns of a transcript, which opens with a person and holds an answer; () of any other text."""
    first, *parts = _TURN.split(text)
    roles: Sequence[str] = parts[::2]
    if first.strip() or not roles or roles[0] != "Human" or "Assistant" not in roles:
        return ()
    return tuple(
        (ROLES[role], content.strip()) for role, content in zip(roles, parts[1::2], strict=True)
    )

"""Conversations as the text that a model's own chat template makes of them."""

import datetime
import functools
import hashlib
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import jinja2
from jinja2 import ext, nodes, sandbox

from rmjax.data.records import TOOLS, Messages, Prompt
from rmjax.errors import UserError

# Set before a character of a message: what follows is text, even where it spells a special token of the model.
PLAIN = "\ue000"
_DATED = "strftime_now"  # the function by which a template renders the date
_FORMATTED = re.compile(rf"{_DATED}\(\s*(['\"])(.*?)\1\s*\)")


class Template:
    """A Jinja chat template as model folders hold it, run in a sandbox.

    What it renders holds the special tokens that it needs, so `Tokenizer.encode_groups` adds none.
    """

    def __init__(
        self,
        source: str,
        bos_token: str = "",
        eos_token: str = "",
        special_tokens: Sequence[str] = (),
        date: str = "",
    ):
        """special_tokens: `Tokenizer.special_tokens`, by which `render` tells what to escape.
        date: the one day, as 2026-12-01, that a template with a date renders; "": today.

        Raises: UserError if the source is no template.
        """
        self.source, self._special_tokens = source, list(special_tokens)
        self._names = {"bos_token": bos_token, "eos_token": eos_token}
        self.pinned = bool(date)
        self.date = (date or datetime.date.today().isoformat()) if _DATED in source else ""
        longest = sorted((t for t in special_tokens if t), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, [PLAIN, *longest])))
        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _json
        environment.globals["raise_exception"] = _refuse
        environment.globals[_DATED] = self._on_date
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template cannot be read: {error}") from error

    def about(self) -> dict[str, str | list[str]]:
        """What makes the same template again, as JSON."""
        names = {**self._names, "special_tokens": self._special_tokens}
        return {"source": self.source, **names} | ({"date": self.date} if self.date else {})

    def dated(self, date: str) -> "Template":
        """The same template, rendering that date where it renders today's."""
        if self.pinned or not self.date:
            return self
        return Template(self.source, **self._names, special_tokens=self._special_tokens, date=date)

    @property
    def pinned_source(self) -> str:
        """The source for other libraries: where it writes the date in a fixed form, this template's date stands."""
        return _FORMATTED.sub(lambda found: json.dumps(self._on_date(found[2])), self.source)

    @property
    def hash(self) -> str:
        """The sha256 of template, the tokens it names and its date, in hex: what a checkpoint depends on."""
        parts = (self.source, *self._names.values(), *([self.date] if self.date else []))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def render(self, messages: Messages, *, generation: bool, escape: bool = False) -> str:
        """The text of a conversation; generation: with the opening of an answer still to come.

        escape: set a PLAIN before every character of a message that is part of a special token's name, or is a PLAIN;
          `Tokenizer.encode_groups` with special_tokens="text" reads these as text.
        Raises: UserError where the template refuses these messages.
        """
        given = {}
        if messages and messages[0][0] == TOOLS:
            given, messages = {"tools": json.loads(messages[0][2])}, messages[1:]
        listed = [_listed(m, self._escaped if escape else str) for m in messages]
        try:
            return self._template.render(
                messages=listed, add_generation_prompt=generation, **given, **self._names
            )
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as error:
            roles = ", ".join(message[0] for message in messages)
            raise UserError(
                f"the chat template refuses a conversation of {roles}: {error}"
            ) from error

    @functools.cached_property
    def lead(self) -> str:
        """What the template sets between the opening of an answer and its text: a space in Mistral's."""
        sign = "\ue001"
        try:
            _, after = split((("user", "?"), ("assistant", sign)), self)
        except UserError:
            return ""
        return after[: max(after.find(sign), 0)]

    def _escaped(self, text: str) -> str:
        return self._special.sub(lambda m: "".join(PLAIN + c for c in m.group()), text)

    def _on_date(self, form: str) -> str:
        return datetime.date.fromisoformat(self.date).strftime(form)


def render(
    prompt: Prompt, completion: str, template: Template | None, *, escape: bool = False
) -> tuple[str, str]:
    """The texts of a prompt and of a completion of it, with what the template puts after an answer.

    Without a template: messages as "role: content" lines, and "assistant: ", which the completion follows.
    With one, a prompt that is text is a user's message. Without a prompt the completion is a text of its own, as it is.
    escape: as of `Template.render`.
    Raises: UserError where the template does not render a conversation as its beginning and more.
    """
    if not prompt:
        return "", completion
    if template is None:
        return opening(prompt, None), completion
    return split((*_messages(prompt), ("assistant", completion)), template, escape=escape)


def opening(prompt: Prompt, template: Template | None, *, escape: bool = False) -> str:
    """The text that a completion of this prompt follows; arguments as of `render`."""
    if template is not None:
        return template.render(_messages(prompt), generation=True, escape=escape)
    return prompt if isinstance(prompt, str) else f"{lines(prompt)}assistant: "


def lines(messages: Messages) -> str:
    """Messages as "role: content" lines."""
    return "".join(f"{m[0]}: {m[1]}\n" for m in messages if m[0] != TOOLS)


def split(messages: Messages, template: Template, *, escape: bool = False) -> tuple[str, str]:
    """The text of a conversation, parted where its last message, an answer, begins.

    Templates may open an answer otherwise than they render one (with a thought that is left out later, say): then the
    two part where they begin to differ.
    Raises: UserError as `render`.
    """
    before = template.render(messages[:-1], generation=True, escape=escape)
    whole = template.render(messages, generation=False, escape=escape)
    if whole.startswith(before):
        return before, whole[len(before) :]
    trunk = template.render(messages[:-1], generation=False, escape=escape)
    shared = os.path.commonprefix([before, whole])
    if not trunk or not shared.startswith(trunk):
        answer = len(messages[-1][1])
        raise UserError(
            "the chat template renders a conversation otherwise once it is answered, so prompt and answer cannot be "
            f"told apart: {before[-60:]!r} does not open {whole[-60 - answer :][:120]!r}; use another template"
        )
    return shared, whole[len(shared) :]


def dropped(messages: Messages, template: Template | None) -> bool:
    """Whether a conversation has tools, tool calls, reasoning or the like that are not part of its rendered text."""
    bare = tuple(message[:2] for message in messages if message[0] != TOOLS)
    if bare == messages:
        return False
    if template is None:
        return True
    try:
        return template.render(messages, generation=False) == template.render(
            bare, generation=False
        )
    except UserError:  # a call that is rendered is needed by what answers it
        return False


def _messages(prompt: Prompt) -> Messages:
    return (("user", prompt),) if isinstance(prompt, str) else prompt


def _listed(message: Sequence[str], escaped: Any) -> dict[str, Any]:
    """A message as a template reads it."""
    more = json.loads(escaped(message[2])) if len(message) > 2 else {}
    return {"role": message[0], "content": escaped(message[1]), **more}


class _Generation(ext.Extension):
    """{% generation %} ... {% endgeneration %}, by which templates mark what an assistant says: its content."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        """The nodes between the two tags."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _json(value: Any, indent: int | None = None, **options: Any) -> str:
    """As other libraries render it: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _refuse(message: str):
    raise jinja2.TemplateError(message)

"""Conversations as the text that a model's own chat template makes of them."""

import datetime
import hashlib
import re
from collections.abc import Sequence

import jinja2
from jinja2 import ext, sandbox

from rmjax.data.records import Messages, Prompt
from rmjax.errors import UserError

# Set before a character of a message: what follows is text, even where it spells a special token of the model.
PLAIN = "\ue000"


class Template:
    """A Jinja chat template as model folders hold it, run in a sandbox.

    What it renders usually opens with bos_token: `Tokenizer.encode_groups` adds no other.
    """

    def __init__(
        self,
        source: str,
        bos_token: str = "",
        eos_token: str = "",
        special_tokens: Sequence[str] = (),
    ):
        """special_tokens: `Tokenizer.special_tokens`; a message that spells one holds text, no special token.

        Raises: UserError if the source is no template.
        """
        self.source, self._special_tokens = source, list(special_tokens)
        self._names = {"bos_token": bos_token, "eos_token": eos_token}
        longest = sorted((t for t in special_tokens if t), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, [PLAIN, *longest])))
        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template cannot be read: {error}") from error

    def about(self) -> dict[str, str | list[str]]:
        """What makes the same template again, as JSON."""
        return {"source": self.source, **self._names, "special_tokens": self._special_tokens}

    @property
    def hash(self) -> str:
        """The sha256 of template and the tokens it names, in hex: one more thing a checkpoint depends on."""
        parts = (self.source, *self._names.values())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def render(self, messages: Messages, *, generation: bool) -> str:
        """The text of a conversation; generation: with the opening of an answer still to come.

        A PLAIN stands before every character of a message that is part of a special token's name, or is a PLAIN.
        Raises: UserError where the template refuses these messages.
        """
        escape = lambda text: self._special.sub(_escaped, text)
        listed = [{"role": role, "content": escape(content)} for role, content in messages]
        try:
            return self._template.render(
                messages=listed, add_generation_prompt=generation, **self._names
            )
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as error:
            roles = ", ".join(role for role, _ in messages)
            raise UserError(
                f"the chat template refuses a conversation of {roles}: {error}"
            ) from error


def render(prompt: Prompt, completion: str, template: Template | None) -> tuple[str, str]:
    """The texts of a prompt and of a completion of it, with what the template puts after an answer.

    Without a template: messages as "role: content" lines, and "assistant: ", which the completion follows.
    With one, a prompt that is text is a user's message. Without a prompt the completion is a text of its own, as it is.
    Raises: UserError where the template does not render a conversation as its beginning and more.
    """
    if not prompt:
        return "", completion
    if isinstance(prompt, str):
        if template is None:
            return prompt, completion
        prompt = (("user", prompt),)
    if template is None:
        lines = "".join(f"{role}: {content}\n" for role, content in prompt)
        return f"{lines}assistant: ", completion
    before = template.render(prompt, generation=True)
    whole = template.render((*prompt, ("assistant", completion)), generation=False)
    if not whole.startswith(before):
        raise UserError(
            "the chat template renders a conversation otherwise once it is answered, so prompt and answer cannot be "
            f"told apart: {before[-60:]!r} does not open {whole[-60 - len(completion) :][:120]!r}; use another template"
        )
    return before, whole[len(before) :]


def _escaped(found: re.Match) -> str:
    return "".join(PLAIN + character for character in found.group())


def _refuse(message: str):
    raise jinja2.TemplateError(message)

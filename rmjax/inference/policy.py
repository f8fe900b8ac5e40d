"""A language model in Python: completions of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rmjax.data import conversations
from rmjax.data.fields import Bad
from rmjax.errors import UserError
from rmjax.inference import completer
from rmjax.sampling import filters
from rmjax.sampling.filters import Settings


class Policy(NamedTuple):
    """A language model, ready to sample from."""

    writer: completer.Writer

    def generate(
        self,
        prompts: Sequence[Any],
        *,
        samples: int = 1,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        batch_size: int = 16,
        seed: int = 0,
    ) -> list[list[str]]:
        """The texts of `samples` completions of each prompt.

        prompts: texts, or lists of {"role", "content"} messages.
        temperature: divides the logits; 0 takes the likeliest token. Other options: as the flags of
          experiments.generate.
        seed: with a prompt's place it decides the samples, whatever batch_size is.
        Raises: UserError naming the prompt or the option.
        """
        settings = Settings(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
        try:
            filters.check(settings)
        except ValueError as error:
            raise UserError(f"generate: {error}") from error
        for name, value in (("samples", samples), ("batch_size", batch_size)):
            if value < 1:
                raise UserError(f"generate: {name} must be at least 1, got {value}")
        answer = completer.sampled(
            self.writer, settings, samples=samples, rows=batch_size, seed=seed, exact=False
        )
        asked = [completer.Asked({}, _prompt(prompt, i)) for i, prompt in enumerate(prompts)]
        return [[one["text"] for one in found] for _, found in answer(asked)]


def load_policy(
    source: str | Path,
    *,
    max_prompt: int = 256,
    stop: str = "",
    plain: bool = False,
    special_tokens: str = "",
) -> Policy:
    """A language model from where it lies.

    source: a run folder of experiments.optimize_policy, "smollm2", a Hugging Face folder, hf://ORG/NAME or a .gguf.
    max_prompt: tokens; longer prompts lose their front. stop: a text that ends a completion, which is cut before it.
    plain: prompts are texts to be continued, also where the model has a chat template.
    special_tokens: how special tokens that a prompt spells are read: "parse", "text", or as the model says ("").
    Raises: UserError where there is no language model, or it has no stop token.
    """
    if max_prompt < 1:
        raise UserError(f"load_policy: max_prompt must be at least 1, got {max_prompt}")
    return Policy(
        completer.load(
            str(source),
            max_prompt=max_prompt,
            stop=stop,
            plain=plain,
            special_tokens=special_tokens,
        )
    )


def _prompt(prompt: Any, place: int) -> Any:
    try:
        return conversations.prompt(prompt)
    except Bad as error:
        raise UserError(f"prompt {place}: {error}") from error

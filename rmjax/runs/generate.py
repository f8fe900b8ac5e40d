"""Answers to prompts by a language model: JSON lines in and out, or one prompt after another at a terminal."""

import collections
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.build import model, packed
from rmjax.data import conversations, language
from rmjax.data.encode import Reader
from rmjax.data.fields import Bad
from rmjax.data.records import Prompt, RatedText
from rmjax.errors import UserError
from rmjax.runs import progress, scoring, stored, streams
from rmjax.sampling import filters, stops
from rmjax.sampling.continuous import Waiting, stream
from rmjax.sampling.filters import Settings
from rmjax.sampling.generate import Samples

Answer = Callable[[Iterable[Prompt]], Iterator[list[dict[str, Any]]]]


def run(
    *,
    policy: str,
    input: str = "",
    output: str = "-",
    reward_model: str = "",
    samples: int = 1,
    max_new_tokens: int = 64,
    max_prompt: int = 256,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: str = "",
    plain: bool = False,
    batch_size: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Adds "completions" to every JSON line {"prompt": ...}; without --input it asks for prompts and shows answers.

    Args:
      policy: the run folder of a language model, "smollm2", a Hugging Face folder, hf://ORG/NAME or a .gguf file.
      input: file of JSON lines, with text or messages as prompts; - is the standard input; "" asks at the terminal.
      output: file to write; - writes lines to the standard output as they are answered.
      reward_model: run folder or Hugging Face folder that ranks the completions, the best first.
      samples: completions of each prompt.
      max_new_tokens: of a completion, its stop token included.
      max_prompt: tokens; longer prompts lose their front.
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: draw from so many likeliest tokens; 0: from all.
      top_p: draw from the likeliest tokens that make up this probability.
      min_p: draw from tokens at least this likely, as a share of the likeliest.
      repetition_penalty: above 1 makes tokens that are there less likely.
      stop: a text that ends a completion, which is then cut before it.
      plain: prompts are texts to be continued, also where the model has a chat template.
      batch_size: prompts answered together; one whose answers have all ended makes room for the next.
      seed: of the samples; the same gives the same.

    Returns: {"lines": how many}.
    Raises: UserError naming the file and line, or the flag.
    """
    settings = Settings(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
    try:
        filters.check(settings)
    except ValueError as error:
        raise UserError(f"flags of sampling: {error}") from error
    for name, value in (
        ("samples", samples),
        ("max_prompt", max_prompt),
        ("batch_size", batch_size),
    ):
        if value < 1:
            raise UserError(f"--{name}: must be at least 1, got {value}")
    answer = _answerer(
        policy, settings, samples, max_prompt, batch_size if input else 1, seed, stop, plain
    )
    rank = _ranked(reward_model) if reward_model else lambda prompt, found: found
    if not input:
        return _ask(answer, rank)
    count, asked = 0, collections.deque[tuple[dict[str, Any], Prompt]]()
    with streams.reading(input) as lines, streams.writing(output) as sink:
        for found in answer(_kept(_rows(lines, input), asked)):
            row, prompt = asked.popleft()
            line = row | {"completions": rank(prompt, found)}
            print(json.dumps(line, ensure_ascii=False), file=sink, flush=True)
            count += 1
    progress.CONSOLE.print(f"answered {count:,} prompts")
    return {"lines": count}


def _kept(
    rows: Iterable[tuple[dict[str, Any], Prompt]], asked: collections.deque
) -> Iterator[Prompt]:
    """The prompts alone; their rows are kept until they are answered, in the same order."""
    for row in rows:
        asked.append(row)
        yield row[1]


def _rows(lines: Iterable[bytes], name: str) -> Iterator[tuple[dict[str, Any], Prompt]]:
    for number, row in streams.objects(lines, name):
        try:
            if not isinstance(row, dict) or "prompt" not in row:
                raise Bad('needs an object with the field "prompt"')
            yield row, conversations.prompt(row["prompt"])
        except Bad as error:
            raise UserError(f"{name}, line {number}: {error}") from error


def _answerer(
    policy: str,
    settings: Settings,
    samples: int,
    max_prompt: int,
    size: int,
    seed: int,
    stop: str,
    plain: bool,
) -> Answer:
    """answer(prompts) -> the samples of each in order, with log-probability and whether it stopped."""
    found = model.policy_of(policy)
    ends = found.tokenizer.id_of(found.stop)
    if ends is None:
        raise UserError(f"--policy={policy!r} names no token that ends a text (eos_token)")
    reader = Reader(found.tokenizer, None if plain else found.template, max_prompt, share=False)
    reads = language.Reads(reader, (ends,))
    settings = settings._replace(stop_tokens=(ends,), pad_token=found.tokenizer.pad_id)
    module, variables = model.language_model(found, "float32")
    ended = (stop,) if stop else ()

    def waiting(prompts: Iterable[Prompt]) -> Iterator[Waiting]:
        for number, prompt in enumerate(prompts):
            (ids,), _ = language.prompts([prompt], reads, max_prompt)
            yield Waiting(ids, packed.key_rows(seed, 0, np.array([number]), samples)[0])

    def answer(prompts: Iterable[Prompt]) -> Iterator[list[dict[str, Any]]]:
        made = stream(module, variables, waiting(prompts), settings, longest=max_prompt, rows=size)
        try:
            for own in made:
                yield [_completion(own, k, found.tokenizer.decode, ended) for k in range(samples)]
        except ValueError as error:
            raise UserError(f"--policy={policy!r}: {error}") from error

    return answer


def _completion(own: Samples, k: int, decode: Callable, ended: tuple[str, ...]) -> dict[str, Any]:
    text = decode(own.tokens[k, : own.lengths[k]])
    kept = stops.truncate(text, ended)
    return {
        "text": kept,
        "log_prob": float(own.log_probs[k].sum()),
        "stopped": bool(own.stopped[k]) or kept != text,
    }


def _ranked(source: str) -> Callable[[Prompt, list[dict[str, Any]]], list[dict[str, Any]]]:
    home = Path(source)
    scorer = scoring.load(home) if (home / "checkpoints").is_dir() else stored.load(source)

    def rank(prompt: Prompt, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        whole = scorer.kind == "texts" and isinstance(prompt, str)
        records = [
            RatedText("", "", "", prompt + one["text"], 0.0)
            if whole and isinstance(prompt, str)
            else RatedText("", "", "", one["text"], 0.0, prompt=prompt)
            for one in found
        ]
        scores = scorer.records(records).mean(axis=0)
        order = np.argsort(-scores, kind="stable")
        return [found[i] | {"reward": float(scores[i])} for i in order]

    return rank


def _ask(answer: Answer, rank: Callable) -> dict[str, Any]:
    """Prompts from the terminal until an empty line or the end of the input."""
    asked: list[str] = []

    def prompts() -> Iterator[Prompt]:
        while True:
            progress.CONSOLE.print("prompt (an empty line ends): ", end="")
            prompt = sys.stdin.readline().rstrip("\n")
            if not prompt:
                return
            asked.append(prompt)
            yield prompt

    for found in answer(prompts()):
        for one in rank(asked[-1], found):
            reward = f"{one['reward']:8.3f}  " if "reward" in one else ""
            print(f"{reward}{one['text'].strip()}")
    return {"lines": len(asked)}

"""Answers to prompts by a language model: JSON lines in and out, or one prompt after another at a terminal."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rmjax.data import conversations, streams
from rmjax.data.fields import Bad
from rmjax.data.records import Prompt, RatedText
from rmjax.errors import UserError
from rmjax.inference import completer, scoring, stored
from rmjax.inference.completer import Answer, Asked
from rmjax.runs import progress
from rmjax.sampling import filters
from rmjax.sampling.filters import Settings


def run(
    *,
    policy: str,
    input: str = "",
    output: str = "-",
    reward_model: str = "",
    reward_output: str = "",
    samples: int = 1,
    max_new_tokens: int = 64,
    max_prompt: int = 256,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    beams: int = 0,
    length_penalty: float = 0.0,
    stop: str = "",
    plain: bool = False,
    special_tokens: str = "",
    logs: bool = False,
    batch_size: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Adds "completions" to every JSON line {"prompt": ...}; without --input it asks for prompts and shows answers.

    Args:
      policy: the run folder of a language model, "smollm2", a Hugging Face folder, hf://ORG/NAME or a .gguf file.
      input: file of JSON lines with the field "prompt", a string or a list of messages; - is the standard input; ""
        asks at the terminal.
      output: file to write; - writes lines to the standard output as they are answered.
      reward_model: run folder or Hugging Face folder that ranks the completions, the best first.
      reward_output: of a Hugging Face folder with several outputs: the one that ranks.
      samples: completions of each prompt.
      max_new_tokens: of a completion, its stop token included.
      max_prompt: tokens; longer prompts lose their front.
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: draw from so many likeliest tokens; 0: from all.
      top_p: draw from the likeliest tokens that make up this probability.
      min_p: draw from tokens at least this likely, as a share of the likeliest.
      repetition_penalty: above 1 makes tokens that are there less likely.
      beams: search for the likeliest completions with so many beams, and draw nothing; `samples` of them are given.
      length_penalty: of a search: its rank is log p / ((5 + length) / 6)^length_penalty.
      stop: a text that ends a completion, which is then cut before it.
      plain: prompts are texts to be continued, also where the model has a chat template.
      special_tokens: how special tokens that a prompt spells are read: parse (as special tokens, like transformers) or
        text; default: as the model's folder says, parse where it says nothing.
      logs: instead a line {"prompt", "completion", "log_prob", "stopped"} of each completion (with "reward" where a
        model ranks), from which a run with off_policy() learns. Refused with flags that draw otherwise than from the
        policy itself; a completion whose text would be read as other tokens than were drawn is left out.
      batch_size: prompts answered together; one whose answers have all ended makes room for the next.
      seed: of the samples; the same gives the same.

    Returns: {"lines": how many}.
    Raises: UserError naming the file and line, or the flag.
    """
    settings = Settings(max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty)
    _check(settings, samples, beams, length_penalty, exact=logs)
    if logs and (stop or not input):
        raise UserError(
            "--logs: needs --input, and no --stop, which cuts completions that were drawn longer"
        )
    for name, value in (("max_prompt", max_prompt), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"--{name}: must be at least 1, got {value}")
    writer = completer.load(
        policy, max_prompt=max_prompt, stop=stop, plain=plain, special_tokens=special_tokens
    )
    rows = batch_size if input else 1
    if beams:
        answer = completer.searched(
            writer,
            max_new_tokens=max_new_tokens,
            beams=beams,
            kept=samples,
            rows=rows,
            length_penalty=length_penalty,
        )
    else:
        answer = completer.sampled(
            writer, settings, samples=samples, rows=rows, seed=seed, exact=logs
        )
    rank = _ranked(reward_model, reward_output) if reward_model else lambda prompt, found: found
    if not input:
        return _ask(answer, rank)
    count, written = 0, 0
    with streams.reading(input) as lines, streams.writing(output) as sink:
        for (row, prompt), found in answer(_rows(lines, input)):
            ranked = rank(prompt, found) if found else []
            made = _log(row, ranked) if logs else [row | {"completions": ranked}]
            for line in made:
                print(json.dumps(line, ensure_ascii=False), file=sink)
            sink.flush()
            written += len(made)
            count += 1
    progress.CONSOLE.print(f"answered {count:,} prompts")
    if logs and written < count * samples:
        progress.CONSOLE.print(
            f"note: {count * samples - written:,} of {count * samples:,} completions are left out, whose text would "
            "be read as other tokens than were drawn"
        )
    return {"lines": written}


def _check(
    settings: Settings, samples: int, beams: int, length_penalty: float, *, exact: bool
) -> None:
    """Raises: UserError on flags outside their range, or that do not go together."""
    try:
        filters.check(settings)
        if exact:
            filters.require_exact(settings)
    except ValueError as error:
        raise UserError(f"flags of sampling: {error}") from error
    if samples < 1:
        raise UserError(f"--samples: must be at least 1, got {samples}")
    if beams < 0 or length_penalty < 0:
        raise UserError(f"--beams={beams}, --length_penalty={length_penalty}: must not be negative")
    if not beams and length_penalty:
        raise UserError("--length_penalty: is of a search; set --beams")
    if beams and (exact or settings != Settings(settings.max_new_tokens)):
        raise UserError(
            "--beams: a search draws nothing; leave out --logs, --temperature, --top_k, --top_p, --min_p and "
            "--repetition_penalty"
        )
    if beams and samples > beams:
        raise UserError(
            f"--samples={samples}: a search with --beams={beams} finds no more than these"
        )


def _rows(lines: Iterable[bytes], name: str) -> Iterator[Asked]:
    for number, row in streams.objects(lines, name):
        try:
            if not isinstance(row, dict) or "prompt" not in row:
                raise Bad('needs an object with the field "prompt"')
            yield Asked(row, conversations.prompt(row["prompt"], tools=row.get("tools")))
        except Bad as error:
            raise UserError(f"{name}, line {number}: {error}") from error


def _log(row: dict[str, Any], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a prompt's completions, as `rmjax.data.formats` reads logs."""
    about = {name: row[name] for name in ("id", "document", "domain", "prompt") if name in row}
    renamed = lambda one: {"completion" if k == "text" else k: v for k, v in one.items()}
    return [about | renamed(one) for one in found]


def _ranked(
    source: str, output: str
) -> Callable[[Prompt, list[dict[str, Any]]], list[dict[str, Any]]]:
    home = Path(source)
    if (home / "checkpoints").is_dir():
        scorer = scoring.load(home)
    else:
        scorer = stored.load(source, asked=stored.Asked(output), flag="--reward_")

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

    def typed() -> Iterator[Asked]:
        while True:
            progress.CONSOLE.print("prompt (an empty line ends): ", end="")
            prompt = sys.stdin.readline().rstrip("\n")
            if not prompt:
                return
            yield Asked({}, prompt)

    count = 0
    for (_, prompt), found in answer(typed()):
        for one in rank(prompt, found):
            reward = f"{one['reward']:8.3f}  " if "reward" in one else ""
            print(f"{reward}{one['text'].strip()}")
        count += 1
    return {"lines": count}

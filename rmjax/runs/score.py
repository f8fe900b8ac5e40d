"""Scores JSON lines as they come, with the model of a run folder or Hugging Face folder and nothing else."""

import collections
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmjax import lookup
from rmjax.data import encode, streams
from rmjax.data.fields import Bad
from rmjax.errors import UserError
from rmjax.evaluation import ensembles
from rmjax.inference import scored, scoring, stored
from rmjax.runs import progress

CHUNK = 256  # lines scored together


class Line(NamedTuple):
    """A JSON line and what is scored of it: a text, a conversation or the steps of a solution."""

    row: dict[str, Any]
    item: scored.Scored


def run(
    *,
    workdir: str = "",
    model: str = "",
    input: str = "-",
    output: str = "-",
    reduce: str = "mean()",
    weights: str = "",
    logit: bool = False,
    max_length: int = 0,
    special_tokens: str = "",
) -> dict[str, Any]:
    """Adds "score" to every JSON line: {"text": ...}, {"prompt": ..., "completion": ...} or {"messages": [...]}.

    A process model reads {"prompt": ..., "steps": [...]}: it adds "step_scores", the lowest of which is the "score".

    Args:
      workdir: folder of a finished run.
      model: instead of it, a Hugging Face folder or hf://ORG/NAME of sequence or token classification.
      input: file of JSON lines; - reads them from the standard input.
      output: file to write; - writes lines to the standard output as they are scored. Of a --model with several outputs
        it may name the one that is the score (an attribute, label or class); lines then go to the standard output.
      reduce: what makes "score" of several seeds' "scores": mean(), worst(), lower_bound(k=1.0).
      weights: of a --model with several outputs: their weights in the score, such as helpfulness=1,verbosity=-0.2.
      logit: of labels and classes the logit in place of the probability.
      max_length: of a --model: tokens at which texts are cut; 0: nothing is.
      special_tokens: how special tokens that a text spells are read: parse (as special tokens, like transformers) or
        text; default: as the model's folder says, parse where it says nothing.

    Returns: {"lines": how many}.
    Raises: UserError naming the file and line that cannot be scored.
    """
    reduced = lookup.bind(reduce, ensembles.REDUCE, key="reduce")
    if bool(workdir) == bool(model):
        raise UserError(
            "name either --workdir, of a finished run, or --model, a Hugging Face folder"
        )
    if workdir and (weights or logit or max_length):
        raise UserError("--weights, --logit and --max_length are of a --model; leave them away")
    if model:
        asked = stored.Asked("", weights, logit, max_length, special_tokens)
        scorer, output = _stored(model, asked, output)
    else:
        scorer = scoring.load(Path(workdir), special_tokens=special_tokens)
    for note in scorer.notes:
        progress.note(note)
    count, counts = 0, collections.Counter()
    with streams.reading(input) as lines, streams.writing(output) as sink:
        for chunk in streams.chunks(_lines(lines, input, scorer.kind), CHUNK):
            found, more = scored.scores(scorer, [line.item for line in chunk])
            counts += more
            for line, own in zip(chunk, found, strict=True):
                made = line.row | _added(own, reduced)
                print(json.dumps(made, ensure_ascii=False), file=sink)
            sink.flush()
            count += len(chunk)
    for note in encode.told(counts):
        progress.note(note)
    progress.CONSOLE.print(f"scored {count:,} lines")
    return {"lines": count}


def _stored(model: str, asked: stored.Asked, output: str) -> tuple[scoring.Scorer, str]:
    """The scorer of a stored model, and the file to write: `output`, where that names no output of the model."""
    if stored.names_output(model, output):
        return stored.load(model, asked=asked._replace(output=output)), "-"
    return stored.load(model, asked=asked), output


def _added(scores: np.ndarray, reduced: Any) -> dict[str, Any]:
    """What a line gets: scores are its own of every seed [S], or those of its steps [S, T]."""
    if scores.ndim == 2:
        steps = reduced(scores)
        return {"score": float(steps.min()), "step_scores": steps.tolist()}
    more = {} if len(scores) == 1 else {"scores": scores.tolist()}
    return {"score": float(reduced(scores[:, None])[0])} | more


def _lines(lines: Iterable[bytes], name: str, kind: str) -> Iterator[Line]:
    """The lines, each checked before it is scored."""
    for number, row in streams.objects(lines, name):
        try:
            if not isinstance(row, dict):
                raise Bad("is no JSON object")
            yield Line(row, scored.parsed(row, f"{name}, line {number}", kind))
        except Bad as error:
            raise UserError(f"{name}, line {number}: {error}") from error

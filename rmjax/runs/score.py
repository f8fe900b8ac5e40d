"""Scores JSON lines as they come, with the model of a run folder or Hugging Face folder and nothing else."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rmjax import lookup
from rmjax.data.records import RatedText
from rmjax.errors import UserError
from rmjax.evaluation import ensembles
from rmjax.runs import progress, scoring, stored, streams

CHUNK = 256  # lines scored together


def run(
    *,
    workdir: str = "",
    model: str = "",
    input: str = "-",
    output: str = "-",
    reduce: str = "mean()",
) -> dict[str, Any]:
    """Adds "score" to every JSON line: {"text": ...}, or {"prompt": ..., "completion": ...} for models of pairs.

    Args:
      workdir: folder of a finished run.
      model: instead of it, a Hugging Face folder or hf://ORG/NAME of sequence classification.
      input: file of JSON lines; - reads them from the standard input.
      output: file to write; - writes lines to the standard output as they are scored.
      reduce: what makes "score" of several seeds' "scores": mean(), worst(), lower_bound(k=1.0).

    Returns: {"lines": how many}.
    Raises: UserError naming the file and line that cannot be scored.
    """
    reduced = lookup.bind(reduce, ensembles.REDUCE, key="reduce")
    if bool(workdir) == bool(model):
        raise UserError(
            "name either --workdir, of a finished run, or --model, a Hugging Face folder"
        )
    scorer = stored.load(model) if model else scoring.load(Path(workdir))
    count = 0
    with streams.reading(input) as lines, streams.writing(output) as sink:
        for chunk in streams.chunks(_rows(lines, input, scorer.kind), CHUNK):
            scores = scorer.records([_record(row) for row in chunk])
            for row, one, each in zip(chunk, reduced(scores), scores.T, strict=True):
                more = {} if len(each) == 1 else {"scores": each.tolist()}
                line = row | {"score": float(one)} | more
                print(json.dumps(line, ensure_ascii=False), file=sink)
            sink.flush()
            count += len(chunk)
    progress.CONSOLE.print(f"scored {count:,} lines")
    return {"lines": count}


def _rows(lines: Iterable[bytes], name: str, kind: str) -> Iterator[dict[str, Any]]:
    """The lines as objects, each checked before it is scored."""
    for number, row in streams.objects(lines, name):
        wanted = ("text",)
        if isinstance(row, dict) and "text" not in row and kind != "texts":
            wanted = ("prompt", "completion")
        for field in wanted:
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                kinds = '"text", or "prompt" and "completion"' if kind != "texts" else '"text"'
                raise UserError(f"{name}, line {number}: needs a string in field {field!r}; this model scores "
                                f"objects with {kinds}")  # fmt: skip
        yield row


def _record(row: dict[str, Any]) -> RatedText:
    prompt, text = ("", row["text"]) if "text" in row else (row["prompt"], row["completion"])
    return RatedText("", "", "", text, 0.0, prompt=prompt)

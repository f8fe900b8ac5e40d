"""Judges the model of a run folder, or of a Hugging Face folder, on any data."""

import re
from pathlib import Path
from typing import Any

from rmjax import lookup
from rmjax.build.data import DATA, KINDS
from rmjax.data import sources
from rmjax.data.records import Record
from rmjax.errors import UserError
from rmjax.evaluation import ensembles
from rmjax.runs import folder, judge, progress, scoring, stored


def run(
    *,
    workdir: str,
    data: str,
    model: str = "",
    reference: str = "",
    beta: float = 0.1,
    name: str = "",
    reduce: str = "mean()",
) -> dict[str, Any]:
    """Judges a reward model on other records than it was trained on; writes WORKDIR/evaluations/NAME.json.

    Args:
      workdir: folder of a finished run, whose model is judged; with --model, any folder.
      data: a JSONL or Parquet file, all of which is judged; or a line as in a config, such as
        "human_ratings()", whose test split is judged.
      model: a reward model that is judged instead: a Hugging Face folder or hf://ORG/NAME of sequence classification.
      reference: what the language model `model` was tuned from: judges the reward that its tuning implies.
      beta: the coefficient it was tuned with.
      name: name of the evaluation; default: the file's stem, or the line's name.
      reduce: how the scores of several seeds become their ensemble's: mean(), worst(), lower_bound(k=1.0).

    Returns: what the file holds.
    Raises: UserError on what the user can mend.
    """
    home, say = Path(workdir), progress.CONSOLE.print
    reduced = lookup.bind(reduce, ensembles.REDUCE, key="reduce")
    if reference and not model:
        raise UserError(
            "--reference says what a policy was tuned from; name the policy with --model"
        )
    if model:
        scorer, results = stored.load(model, reference=reference, beta=beta), {}
    else:
        results = folder.read_json(home / "results.json")
        scorer = scoring.load(home)
    test, validation, notes, classes = _records(data)
    kind = KINDS[type(test[0])]
    if kind == "plain texts":
        raise UserError(
            f"{data} holds texts without ratings, by which a reward model could be judged; file(path=..., "
            "rating='reward') makes the rewards of logs ratings"
        )
    if (kind == "processes") != (scorer.kind == "processes"):
        raise UserError(
            f"{data} holds {kind}; the model in {model or home} was trained on {scorer.kind}, and what scores whole "
            "texts does not score steps"
        )
    if reference and kind == "texts":
        raise UserError(
            f"{data} holds {kind}; an implicit reward compares completions of one prompt: give pairs or rankings"
        )
    say(f"scoring {len(test):,} {kind}")
    scores, outputs = scorer.judged(test)
    held = outputs["logits"].shape[-1] if "logits" in outputs else 0
    if classes and held != len(classes):
        notes = [*notes, f"no class accuracy: the model's head is not of {len(classes)} classes"]
        classes = ()
    if model:  # fitted where there is something to fit them on, as a run does
        fitted = judge.temperatures(validation, scorer.records(validation)) if validation else {}
        interval = judge.interval_name(1)
        results = {"interval": interval, "trained_domains": [], "temperatures": fitted}
    link = judge.own_link(scorer.config.loss, scorer.config.pair_arrays, outputs)
    found = {
        "data": data,
        "model": model or str(home),
        "interval": results["interval"],
        "trained_domains": results["trained_domains"],
        "notes": notes,
        "metrics": judge.figures(
            test, scores, results["temperatures"], validation, link, reduced, outputs, classes
        ),
        "reliability": judge.reliability(test, scores, results["temperatures"]),
    }
    path = home / "evaluations" / f"{name or re.split(r'[(.]', Path(data).name)[0]}.json"
    folder.write_json(path, found)
    say(progress.table(found))
    say(f"Done: {path}")
    return found


def _records(data: str) -> tuple[list[Record], list[Record], list[str], tuple[str, ...]]:
    """(test, validation, notes, names of classes) of a file or of a config's data line."""
    if not re.fullmatch(r"\w+\(.*\)", data, flags=re.DOTALL):
        read = sources.read(data)
        return read.records, [], read.notes, read.classes
    loaded = lookup.bind(data, DATA, key="data")()
    return loaded.test, loaded.validation, loaded.notes, loaded.classes

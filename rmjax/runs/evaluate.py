"""Evaluates the model of a run folder, or of a Hugging Face folder, on any data."""

import re
from pathlib import Path
from typing import Any

from rmjax import lookup
from rmjax.assembly.data import DATA
from rmjax.data import sources
from rmjax.data.encode import told
from rmjax.data.records import KINDS, Record
from rmjax.errors import UserError
from rmjax.evaluation import comparison, ensembles
from rmjax.inference import run_folder, scoring, stored
from rmjax.models.outputs import in_order
from rmjax.runs import progress


def run(
    *,
    workdir: str,
    data: str,
    model: str = "",
    reference: str = "",
    beta: float = 0.1,
    name: str = "",
    reduce: str = "mean()",
    output: str = "",
    weights: str = "",
    logit: bool = False,
    max_length: int = 0,
    special_tokens: str = "",
) -> dict[str, Any]:
    """Evaluates a reward model on other records than it was trained on; writes WORKDIR/evaluations/NAME.json.

    Args:
      workdir: folder of a finished run, whose model is evaluated; with --model, any folder.
      data: a JSONL or Parquet file, all of which is evaluated; or a line as in a config, such as
        "human_ratings()", whose test split is evaluated.
      model: instead, a Hugging Face folder or hf://ORG/NAME of sequence classification.
      reference: what the language model `model` was tuned from: evaluates the reward that its tuning implies.
      beta: the coefficient it was tuned with.
      name: name of the evaluation; default: the file's stem, or the line's name.
      reduce: how the scores of several seeds become their ensemble's: mean(), worst(), lower_bound(k=1.0).
      output: of a `model` with several outputs: the one that is the score (an attribute, label or class).
      weights: instead, their weights in the score, such as helpfulness=1,verbosity=-0.2.
      logit: of labels and classes the logit in place of the probability.
      max_length: of a `model`: tokens at which texts are cut; 0: nothing is.
      special_tokens: how special tokens that a text spells are read: parse (as special tokens, like transformers) or
        text; default: as the model's folder says, parse where it says nothing.

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
        asked = stored.Asked(output, weights, logit, max_length, special_tokens)
        scorer, results = stored.load(model, reference=reference, beta=beta, asked=asked), {}
    elif output or weights or logit or max_length:
        raise UserError(
            "--output, --weights, --logit and --max_length are of a --model; leave them away"
        )
    else:
        results = run_folder.read_json(home / "results.json")
        scorer = scoring.load(home, special_tokens=special_tokens)
    test, validation, notes, classes = _records(data)
    kind = KINDS[type(test[0])]
    if kind == "plain texts":
        raise UserError(
            f"{data} holds texts without ratings, by which a reward model could be evaluated; file(path=..., "
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
    scores, outputs, counts = scorer.scored(test)
    notes = [*notes, *scorer.notes, *told(counts)]
    for note in notes:
        progress.note(note)
    outputs, classes, note = _classified(scorer, outputs, classes)
    notes += [note] if note else []
    if model:  # fitted where there is something to fit them on, as a run does
        fitted = (
            comparison.temperatures(validation, scorer.records(validation)) if validation else {}
        )
        interval = comparison.interval_name(1)
        results = {"interval": interval, "trained_domains": [], "temperatures": fitted}
    link = comparison.own_link(scorer.config.loss, scorer.config.pair_arrays, outputs)
    found = {
        "data": data,
        "model": model or str(home),
        "interval": results["interval"],
        "trained_domains": results["trained_domains"],
        "notes": notes,
        "metrics": comparison.figures(
            test, scores, results["temperatures"], validation, link, reduced, outputs, classes
        ),
        "reliability": comparison.reliability(test, scores, results["temperatures"]),
    }
    path = home / "evaluations" / f"{name or re.split(r'[(.]', Path(data).name)[0]}.json"
    run_folder.write_json(path, found)
    say(progress.table(found))
    say(f"Done: {path}")
    return found


def _classified(
    scorer: scoring.Scorer, outputs: scoring.Outputs, classes: tuple[str, ...]
) -> tuple[scoring.Outputs, tuple[str, ...], str]:
    """The outputs with logits in the order of the data's classes, these classes, and a note where they do not fit."""
    if not classes:
        return outputs, classes, ""
    logits = outputs.get("logits")
    if logits is not None and scorer.outputs is not None:
        logits = in_order(scorer.outputs, logits, classes)
    if logits is None or logits.shape[-1] != len(classes):
        note = f"no class accuracy: the model's outputs are not the data's classes {', '.join(classes)}"
        return outputs, (), note
    return {**outputs, "logits": logits}, classes, ""


def _records(data: str) -> tuple[list[Record], list[Record], list[str], tuple[str, ...]]:
    """(test, validation, notes, names of classes) of a file or of a config's data line."""
    if not re.fullmatch(r"\w+\(.*\)", data, flags=re.DOTALL):
        read = sources.read(data)
        return read.records, [], read.notes, read.classes
    loaded = lookup.bind(data, DATA, key="data")()
    return loaded.test, loaded.validation, loaded.notes, loaded.classes

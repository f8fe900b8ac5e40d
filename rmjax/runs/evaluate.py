"""Judges the model of a run folder on any data."""

import re
from pathlib import Path
from typing import Any

from rmjax import lookup
from rmjax.build.data import DATA, KINDS
from rmjax.data import sources
from rmjax.data.records import Record
from rmjax.errors import UserError
from rmjax.evaluation import ensembles
from rmjax.runs import folder, judge, progress, scoring


def run(*, workdir: str, data: str, name: str = "", reduce: str = "mean()") -> dict[str, Any]:
    """Judges the model of a finished run on other records; writes evaluations/NAME.json there.

    Args:
      workdir: folder of a finished run.
      data: a JSONL or Parquet file, all of which is judged; or a line as in a config, such as
        "human_ratings()", whose test split is judged.
      name: name of the evaluation; default: the file's stem, or the line's name.
      reduce: how the scores of several seeds become their ensemble's: mean(), worst(), lower_bound(k=1.0).

    Returns: what the file holds.
    Raises: UserError on what the user can mend.
    """
    home, say = Path(workdir), progress.CONSOLE.print
    reduced = lookup.bind(reduce, ensembles.REDUCE, key="reduce")
    results = folder.read_json(home / "results.json")
    scorer = scoring.load(home)
    test, validation, notes = _records(data)
    kind = KINDS[type(test[0])]
    if (kind == "processes") != (scorer.kind == "processes"):
        raise UserError(
            f"{data} holds {kind}; the model in {home} was trained on {scorer.kind}, and what scores whole texts does "
            "not score steps"
        )
    say(f"scoring {len(test):,} {kind}")
    scores = scorer.records(test)
    link = judge.own_link(scorer.config.loss, scorer.config.pair_arrays)
    found = {
        "data": data,
        "interval": results["interval"],
        "trained_domains": results["trained_domains"],
        "notes": notes,
        "metrics": judge.figures(test, scores, results["temperatures"], validation, link, reduced),
        "reliability": judge.reliability(test, scores, results["temperatures"]),
    }
    path = home / "evaluations" / f"{name or re.split(r'[(.]', Path(data).name)[0]}.json"
    folder.write_json(path, found)
    say(progress.table(found))
    say(f"Done: {path}")
    return found


def _records(data: str) -> tuple[list[Record], list[Record], list[str]]:
    """(test, validation, notes) of a file or of a config's data line."""
    if not re.fullmatch(r"\w+\(.*\)", data, flags=re.DOTALL):
        read = sources.read(data)
        return read.records, [], read.notes
    loaded = lookup.bind(data, DATA, key="data")()
    return loaded.test, loaded.validation, loaded.notes

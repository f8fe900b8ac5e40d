"""k-fold on small data sets: k models, each evaluated on documents that it never saw, every document evaluated once."""

import copy
import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rmjax.assembly import reward as assembly
from rmjax.errors import UserError
from rmjax.evaluation import statistics
from rmjax.inference import run_folder
from rmjax.runs import progress, train_reward


def run(*, config: ConfigDict, workdir: str, folds: int = 5) -> dict[str, Any]:
    """Trains and evaluates one reward model a fold; the same command again goes on or reports.

    Args:
      config: file and name, such as configs/reward.py:hh; change a line with --config.KEY=VALUE.
      workdir: folder of all folds; fold_0, fold_1, ... in it are runs of their own.
      folds: how many parts the documents are dealt into; of each run one is evaluated, one chooses the checkpoint.

    Returns: what results.json holds; {"finished": False} after SIGTERM.
    Raises: UserError on what the user can mend.
    """
    c: Any = config
    assembly.plan(c)  # whatever is wrong is said before any fold
    if c.fold:
        raise UserError(f"config key 'fold': is set here by --folds; leave it out, not {c.fold!r}")
    if c.seeds > 1:
        raise UserError("config key 'seeds': folds take the place of seeds; set seeds=1")
    home, parts = Path(workdir), []
    for i in range(folds):
        progress.CONSOLE.print(f"fold {i + 1} of {folds}")
        own: Any = copy.deepcopy(config)
        own.fold = f"{i}/{folds}"
        parts.append(train_reward.run(config=own, workdir=str(home / f"fold_{i}")))
        if not parts[-1]["finished"]:
            return {"finished": False}
    results = {
        "experiment": "cross_validate",
        "finished": True,
        "folds": folds,
        "seconds": sum(p["seconds"] for p in parts),
        "interval": f"95% over {folds} folds (Student's t), which share training data",
        "trained_domains": parts[0]["trained_domains"],
        "metrics": {name: _over_folds([p["metrics"].get(name) for p in parts]) for name in parts[0]["metrics"]},
    }  # fmt: skip
    run_folder.write_json(home / "results.json", results)
    progress.CONSOLE.print(progress.table(results))
    progress.CONSOLE.print(f"Done: {home}/results.json")
    return results


def _over_folds(figures: list[dict[str, Any] | None]) -> dict[str, Any]:
    """One figure of all folds: mean, interval over folds, and counts added up."""
    there = [f for f in figures if f is not None]
    values = [f["value"] for f in there if f["value"] is not None]
    bounds = there[0].get("bounds", (-math.inf, math.inf))
    made = statistics.Estimate(*[math.nan] * 3)
    if values:
        made = statistics.over_seeds(values, tuple(bounds))
    shown = {k: v if math.isfinite(v) else None for k, v in made._asdict().items()}
    counts = [k for k in there[0] if k in ("n", "documents", "pairs", "steps")]
    return shown | {k: sum(f[k] for f in there) for k in counts} | {"per_fold": values}

"""Prints a table of a paper beside our own figures, and keeps it in four formats."""

from pathlib import Path
from typing import Any

from rmjax.errors import UserError
from rmjax.inference import run_folder
from rmjax.runs import progress
from rmjax.runs.tables import TABLES
from rmjax.runs.tables.render import FORMATS


def run(*, table: str, workdir: str = "", runs: str = "") -> dict[str, Any]:
    """Prints a table of a paper with our figures beside the published ones; writes table.md, .csv, .tex, .json.

    Args:
      table: name of the table: vader_table4.
      workdir: folder to write to; default: runs/tables/NAME.
      runs: folders of finished reward runs on human ratings whose models are added as rows, separated by commas;
        several joined by + are one row, the mean of their predicted ratings; default: those in runs/, one by one.

    Returns: {"table": its name, "rows": its records}.
    Raises: UserError on an unknown table, or naming the folder that is no such run.
    """
    if table not in TABLES:
        raise UserError(f"--table: there is no {table!r}; known: {', '.join(sorted(TABLES))}")
    home = Path(workdir or f"runs/tables/{table}")
    parts = [entry.split("+") for entry in runs.split(",") if entry.strip()]
    named = [[Path(name.strip()) for name in entry] for entry in parts]
    folders = named or [[home] for home in _finished(Path("runs"))]
    progress.CONSOLE.print(f"making {table}: under a minute")
    made = TABLES[table](folders)
    for ending, text in FORMATS.items():
        run_folder.write_text(home / f"table.{ending}", text(made))
    print(FORMATS["md"](made), end="")
    progress.CONSOLE.print(f"Done: {home}/table.md, .csv, .tex, .json")
    return {"table": table, "rows": [dict(record) for record in made.records]}


def _finished(home: Path) -> list[Path]:
    """The folders in `home` of finished reward runs on human ratings."""
    found = []
    for path in sorted(home.glob("*/results.json")):
        data = run_folder.read_json(path.parent / "config.json")["data"]
        if run_folder.read_json(path)["experiment"] == "reward" and data.startswith(
            "human_ratings("
        ):
            found.append(path.parent)
    return found

"""Tables of the papers, with our own figures beside the published ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rmjax.runs.tables import vader_table4
from rmjax.runs.tables.render import Table

# From the folders of finished runs, several for a committee of them, to the table.
TABLES: Mapping[str, Callable[[Sequence[Sequence[Path]]], Table]] = {
    "vader_table4": vader_table4.make
}

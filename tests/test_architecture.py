"""The house plan of imports and files, and that every requirement is used."""

import ast
import importlib.metadata
import re
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
ROOTS = ("rmjax", "experiments", "configs")
FILES = sorted(path.relative_to(HOME) for root in ROOTS for path in (HOME / root).rglob("*.py"))
# From the top of the house to its ground. A room imports what stands below it, and nothing of another on its floor.
FLOORS = (
    {"experiments"},
    {"runs", "launch", "__init__"},
    {"sweep"},
    {"assembly"},
    {"rl"},
    {"inference"},
    {"train", "sampling", "evaluation", "interpret", "report"},
    {"rewards", "environments"},
    {"models", "losses", "data"},
    {"lookup", "arrays", "mean", "assets", "errors", "memory"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NEVER = {
    "experiments": {"assembly", "rl", "inference", "data", "models"},  # launchers launch
    "train": {"models", "losses", "data"},  # receives functions
    "sampling": {"losses", "data"},
}
OF_JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
DRAWERS = {"utils", "util", "common", "core", "base", "manager", "helpers", "misc", "tools"}


def imports(path: Path) -> list[str]:
    """The dotted names a file imports, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse((HOME / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def room_of(path: Path) -> str:
    return path.with_suffix("").parts[path.parts[0] == "rmjax"]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_plan(path):
    room = room_of(path)
    if room == "configs":
        assert all(name.startswith("ml_collections") for name in imports(path))
        return
    assert room in FLOOR, f"{room} has no place in the plan"
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "rmjax":
            other = rest[0]
            below = other == room or FLOOR[other] > FLOOR[room] or other == "errors"
            assert below and other not in NEVER.get(room, ()), f"{path} imports {name}"
        assert top not in ("experiments", "configs", "tests"), f"{path} imports {name}"
        if room == "data":
            assert top not in OF_JAX, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_are_short_and_named_for_what_they_do(path):
    assert len((HOME / path).read_text(encoding="utf-8").splitlines()) <= 600
    assert not DRAWERS & {part.removesuffix(".py") for part in path.parts}


def test_only_launch_exits():
    exits = {
        path.stem
        for path in FILES
        for node in ast.walk(ast.parse((HOME / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.Attribute)
        and ast.unparse(node) in ("sys.exit", "exit", "quit", "os._exit", "SystemExit")
    }
    assert exits == {"launch"}


def test_every_requirement_is_used():
    indirect = {
        "jaxlib": "what jax runs on",
        "array-record": "the file format that tensorflow-datasets writes",
        "importlib-resources": "tensorflow-datasets imports it without declaring it",
        "requests": "vaderSentiment imports it at load",
    }
    normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
    text = (HOME / "requirements.txt").read_text()
    required = {normal(found) for found in re.findall(r"^([\w.-]+)==", text, flags=re.MULTILINE)}
    owners = importlib.metadata.packages_distributions()
    imported = {name.split(".")[0] for path in FILES for name in imports(path)}
    used = {normal(owner) for name in imported for owner in owners.get(name, [])}
    assert required - used - set(indirect) == set()
    assert set(indirect) <= required

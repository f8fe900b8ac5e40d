"""README and docs: every command is one that its own flags accept, links lead somewhere, and every loss is listed."""

import functools
import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from rmjax.losses import LOSSES

HOME = Path(__file__).parents[1]
PAGES = sorted([HOME / "README.md", HOME / "CONTRIBUTING.md", *(HOME / "docs").glob("*.md")])


def commands(page):
    """The experiments commands of a page's code blocks, as (module, arguments)."""
    for block in re.findall(r"^```\n(.*?)^```", page.read_text("utf-8"), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("python -m experiments."):
                words = shlex.split(re.split(r"\s[<>|]\s", line)[0], comments=True)
                yield words[2], words[3:]


COMMANDS = [(page.name, *command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "module", "arguments"), COMMANDS)
def test_every_command_is_parsed_by_its_own_flags(page, module, arguments, monkeypatch, capsys):
    name, called = module.removeprefix("experiments."), []
    own = importlib.import_module(f"rmjax.runs.{name}")

    @functools.wraps(own.run)
    def run(**given):
        called.append(given)

    monkeypatch.setattr(own, "run", run)
    monkeypatch.setattr(sys, "argv", [module, *arguments, "--nocompilation_cache"])
    monkeypatch.chdir(HOME)
    runpy.run_module(module, run_name="__main__")
    assert len(called) == 1, capsys.readouterr().err


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 12
    assert {page for page, *_ in COMMANDS} >= {
        "README.md",
        "quickstart.md",
        "policies.md",
        "data.md",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_readme_is_short():
    text = (HOME / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 125 and len(text.encode()) <= 8192


def test_every_loss_is_listed():
    pages = "".join(
        (HOME / "docs" / name).read_text("utf-8") for name in ("reward-models.md", "policies.md")
    )
    assert [name for name in LOSSES if f"| `{name}()` |" not in pages] == []

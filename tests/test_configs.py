"""Every named config binds, can be overridden from the shell, and every key of it is read."""

import ast
from pathlib import Path

import pytest

from configs import reward
from rmjax.build import reward as build

HOME = Path(__file__).parents[1]
READERS = ("rmjax/build/reward.py", "rmjax/runs/reward.py")


def keys_read():
    """Attributes taken of a variable named c or config in the two files that hold a run's config."""
    return {
        node.attr
        for name in READERS
        for node in ast.walk(ast.parse((HOME / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("c", "config")
    }


def test_every_key_is_read_and_no_other():
    assert {*reward.get_config()} == keys_read() - {"to_dict", "to_json"}


@pytest.mark.parametrize("name", reward.NAMES)
def test_every_named_config_binds(name):
    config = reward.get_config(name)
    assert build.plan(config).terms
    assert {type(config[key]) for key in config} <= {str, int, float, bool}  # None has no flag
    assert {*config} == {*reward.get_config()}


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'movie', 'ratings', .*'tiny_pairs'\], not 'nope'"):
        reward.get_config("nope")

"""Every named config binds, can be overridden from the shell, and every key of it is read."""

import ast
from pathlib import Path

import pytest

from configs import policy, reward
from rmjax.assembly import policy as build_policy
from rmjax.assembly import reward as build_reward

HOME = Path(__file__).parents[1]
BUILDS = {reward: build_reward, policy: build_policy}
READERS = {
    reward: ("assembly/reward", "runs/train_reward", "assembly/training"),
    policy: ("assembly/policy", "rl/critic", "rl/episodes", "assembly/strategies", "rl/rollout", "assembly/training",
             "rl/advantages", "rl/reward_shaping", "runs/optimize_policy", "rl/reward_functions",
             "rl/policy_evaluation"),
}  # fmt: skip
NAMED = [(config, name) for config in BUILDS for name in config.NAMES]


def keys_read(config):
    """Attributes taken of a variable named c or config in the files that hold a run's config, and what they ask for
    by a string alone."""
    trees = [ast.parse((HOME / f"rmjax/{name}.py").read_text("utf-8")) for name in READERS[config]]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    attributes = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("c", "config")
    }
    return attributes, {node.value for node in nodes if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("config", BUILDS)
def test_every_key_is_read_and_no_other(config):
    attributes, strings = keys_read(config)
    attributes -= {"to_dict", "to_json"}
    keys = {*config.get_config()}
    assert attributes <= keys
    made = {f"{key}_{what}" for key in ("reward", "gold") for what in ("model", "output")}
    strings |= made  # f"{key}_model"
    by_name = {"kl", "baseline", "returns", "weights", "reward", "gold"}
    assert keys - attributes <= strings & {*by_name, *made}


@pytest.mark.parametrize(("config", "name"), NAMED)
def test_every_named_config_binds(config, name):
    made = config.get_config(name)
    found = BUILDS[config].plan(made)
    assert found.terms or found.evolution
    assert {type(made[key]) for key in made} <= {str, int, float, bool}  # None has no flag
    assert {*made} == {*config.get_config()}


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'movie', 'ratings', .*'tiny_pairs'\], not 'nope'"):
        reward.get_config("nope")
    with pytest.raises(ValueError, match=r"'gpt', 'sentiment', .*\], not 'nope'"):
        policy.get_config("nope")

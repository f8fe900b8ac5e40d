"""The `reward_shaping` line of a config: what becomes of the summed rewards of a rollout before they are learned from.

Legend: N texts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rmjax import lookup
from rmjax.errors import UserError
from rmjax.rewards import combine
from rmjax.rewards.combine import Running


def normalize() -> None:
    """Rewards less the mean of those of earlier rollouts, over their deviation."""


STEPS = {
    "normalize": normalize,
    **{f.__name__: f for f in (combine.clip, combine.length_penalty, combine.stop_or_penalty)},
}


class Shaping(NamedTuple):
    """Steps in the order that they are taken; `normalize` keeps its statistics in the carry."""

    steps: tuple[lookup.Term, ...]

    @property
    def start(self) -> dict[str, Any]:
        """Its part of the carry before the first rollout, as JSON keeps it."""
        normalized = any(step.name == "normalize" for step in self.steps)
        return {"running": Running()._asdict()} if normalized else {}

    def __call__(
        self,
        rewards: np.ndarray,
        lengths: np.ndarray,
        stopped: np.ndarray,
        carry: Mapping[str, Any],
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The shaped rewards [N], and the carry with these rewards counted in."""
        found, after = np.asarray(rewards, np.float32), dict(carry)
        for step in self.steps:
            if step.name == "normalize":
                seen = Running(**carry["running"])
                after["running"] = combine.update(seen, found)._asdict()
                found = combine.normalize(found, seen)
                continue
            offered = {"rewards": found, "lengths": lengths, "stopped": stopped}
            read = {name: offered[name] for name in lookup.arrays(step.function)}
            found = step.function(**read)
        return found, after


def plan(config: Any) -> Shaping:
    """Binds the line.

    Raises: UserError naming the key.
    """
    found = lookup.sequence(config.reward_shaping, STEPS, key="reward_shaping")
    if found and not config.samples:
        raise UserError(
            "config key 'reward_shaping': shapes rewards of samples; set samples to 1 or more, or this to 'none()'"
        )
    return Shaping(tuple(found))

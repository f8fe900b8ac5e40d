"""Environments of texts as gymnasium's, and gymnasium's that speak and hear text as environments of texts."""

import string
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium import spaces

from rmjax.environments.protocol import Environment, Turn
from rmjax.errors import UserError


class TextEnv(gymnasium.Env[str, str]):
    """An environment of texts as gymnasium has them; `gymnasium.utils.env_checker` passes it."""

    metadata = {"render_modes": []}

    def __init__(
        self, environment: Environment, *, max_length: int = 1000, charset: str = string.printable
    ):
        """max_length, charset: of observations and actions, as gymnasium's spaces declare them."""
        self._environment, self._state, self._turn = environment, None, 0
        space = lambda: spaces.Text(max_length, min_length=0, charset=charset)
        self.observation_space, self.action_space = space(), space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The episode of `seed`, or of a random one that earlier seeds decide."""
        super().reset(seed=seed, options=options)
        own = int(self.np_random.integers(2**31)) if seed is None else seed
        self._turn = 0
        self._state, observation = self._environment.reset(own)
        return observation, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """observation, reward, terminated, truncated (after the environment's most turns), info."""
        self._turn += 1
        self._state, observation, reward, done = self._environment.step(self._state, action)
        cut = not done and self._turn >= self._environment.turns
        return observation, float(reward), bool(done), cut, {}


def gym(*, id: str, turns: int = 0) -> Environment:
    """A registered gymnasium environment whose observations and actions are texts, such as gym(id="module:Name-v0").

    Its `reset(seed)` must decide an episode: a state is the seed with the actions so far, and a step plays them again.
    An action that is not in its action space is not taken: the turn passes without reward, and what was observed
    before is observed again.

    turns: most actions of an episode; 0: as many as the registration says (max_episode_steps).
    Raises: UserError if there is no such environment, it has other spaces, or no number of turns is known.
    """
    refuse = lambda why: UserError(f"config key 'environment': gym(id={id!r}): {why}")
    try:
        made = gymnasium.make(id, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        raise refuse(error) from error
    for name in ("observation_space", "action_space"):
        if not isinstance(found := getattr(made, name), spaces.Text):
            raise refuse(f"its {name} is {found}; it must be gymnasium.spaces.Text")
    most = turns or (made.spec and made.spec.max_episode_steps) or 0
    if most < 1:
        raise refuse("it names no max_episode_steps; say turns=, the most actions of an episode")
    return Environment(id, most, *_replayed(made))


def _replayed(made: gymnasium.Env) -> tuple[Callable[[int], Any], Callable[[Any, str], Turn]]:
    """`reset` and `step` of a gymnasium environment, which itself is changed by being stepped."""

    def reset(seed: int):
        observation, _ = made.reset(seed=seed)
        return (seed, (), observation), observation

    def step(state, action: str) -> Turn:
        seed, taken, observation = state
        if not made.action_space.contains(action):
            return Turn(state, observation, 0.0, False)
        made.reset(seed=seed)
        for earlier in taken:
            made.step(earlier)
        observation, reward, terminated, truncated, _ = made.step(action)
        done = terminated or truncated
        return Turn((seed, (*taken, action), observation), observation, float(reward), done)

    return reset, step

"""What an environment of texts is: two pure functions, so that episodes can be played side by side and played again."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """What an action leads to.

    state: what the next `step` starts from; it holds all that the environment remembers.
    observation: the text that is said to the player, "" where nothing is.
    reward: of this action alone; the return of an episode is the sum over its turns.
    done: whether the episode ends here.
    """

    state: Any
    observation: str
    reward: float
    done: bool


class Environment(NamedTuple):
    """A game, a tool or a dialogue whose every turn is a text.

    name: the domain of its episodes in figures.
    turns: most actions of an episode; one that is not done by then ends there.
    reset: seed (>= 0) -> (state, first observation), which is not empty.
    step: (state, action) -> Turn. Any text is an action. The same state and action always give the same turn.
    """

    name: str
    turns: int
    reset: Callable[[int], tuple[Any, str]]
    step: Callable[[Any, str], Turn]

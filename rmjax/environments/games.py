"""Small games of text."""

import string
from typing import NamedTuple

import numpy as np

from rmjax.environments.protocol import Environment, Turn

CLUE = 0.25  # of the return of 1: the reward of opening the box that was named


class Box(NamedTuple):
    """Where a game of `open_box` stands: the box that was named, what it holds, and whether a box was opened."""

    letter: str
    holds: str
    opened: bool = False


def open_box(*, letters: int = 4) -> Environment:
    """A box is named ("open c"), and the letter in it is to be told, which nobody knows who has not opened it.

    Turn 1: the letter of the named box shows what it holds ("found a") and earns CLUE; all else shows "empty".
    Turn 2: the letter that it holds earns 1 - CLUE, whatever was opened. So a perfect player's return is 1, a player
    of one turn has CLUE at most, and one that does not heed what it found `blind_return(letters)`.

    letters: how many boxes there are, and letters that one may hold, each as likely; in [1, 26].
    Raises: ValueError on another number.
    """
    if not 1 <= letters <= 26:
        raise ValueError(f"letters must be in 1..26, got {letters}")

    def reset(seed: int) -> tuple[Box, str]:
        letter, holds = np.random.default_rng(seed).integers(letters, size=2)
        state = Box(string.ascii_lowercase[letter], string.ascii_lowercase[holds])
        return state, f"open {state.letter}"

    def step(state: Box, action: str) -> Turn:
        said = action.strip()
        if state.opened:
            return Turn(state, "", (1 - CLUE) * (said == state.holds), True)
        right = said == state.letter
        shown = f"found {state.holds}" if right else "empty"
        return Turn(state._replace(opened=True), shown, CLUE * right, False)

    return Environment("open_box", 2, reset, step)


def blind_return(letters: int) -> float:
    """The most that a player of `open_box` earns on average who does not heed the answer to the first turn."""
    return CLUE + (1 - CLUE) / letters

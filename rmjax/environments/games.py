"""Small games of text."""

import string
from typing import NamedTuple

import numpy as np

from rmjax.environments.protocol import Environment, Turn

CLUE = 0.25  # of the return of 1: the reward of opening the box that was named


class Box(NamedTuple):
    """Where a game of `open_box` stands: the box that was named, the digit in it, and whether one was opened."""

    letter: str
    digit: str
    opened: bool = False


def open_box(*, boxes: int = 4, digits: int = 4) -> Environment:
    """A box is named ("open c"), and the digit in it is to be told, which nobody knows who has not opened it.

    Turn 1: the letter of the named box shows its digit ("found 3") and earns CLUE; all else shows "empty".
    Turn 2: the digit earns 1 - CLUE, whatever was opened. So a perfect player's return is 1, a player of one turn has
    CLUE at most, and one that does not heed what it found `blind_return(digits)`.

    boxes, digits: how many there are, each as likely, in [1, 26] and [1, 10].
    Raises: ValueError on other numbers.
    """
    if not (1 <= boxes <= 26 and 1 <= digits <= 10):
        raise ValueError(f"boxes must be in 1..26 and digits in 1..10, got {boxes} and {digits}")

    def reset(seed: int) -> tuple[Box, str]:
        box, digit = np.random.default_rng(seed).integers([boxes, digits])
        letter = string.ascii_lowercase[box]
        return Box(letter, str(digit)), f"open {letter}"

    def step(state: Box, action: str) -> Turn:
        said = action.strip()
        if state.opened:
            return Turn(state, "", (1 - CLUE) * (said == state.digit), True)
        right = said == state.letter
        shown = f"found {state.digit}" if right else "empty"
        return Turn(state._replace(opened=True), shown, CLUE * right, False)

    return Environment("open_box", 2, reset, step)


def blind_return(digits: int) -> float:
    """The most that a player of `open_box` earns on average who does not heed the answer to the first turn."""
    return CLUE + (1 - CLUE) / digits

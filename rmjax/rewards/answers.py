"""Is the answer right: rewards of 1 or 0 against the data's own answer.

Legend: N completions. Every reward is float32 [N].
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from rmjax.rewards.patterns import compiled

# Thousands in groups of three or plain digits; decimals; a short exponent. A minus after a letter or digit is a hyphen
# or an operator. Numbers inside of words (H2O) and behind a second point (1.2.3) are none.
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?|(?<!\.)\.\d+"
_SIGN = r"(?:(?<![A-Za-z0-9_)])[-−+])?[$€£¥]?"
_VALUE = re.compile(
    rf"(?P<sign>{_SIGN})(?:\\[dt]?frac\{{(?P<over>{_NUMBER})\}}\{{(?P<under>{_NUMBER})\}}"
    rf"|(?<![A-Za-z0-9_])(?<!\d\.)(?P<number>{_NUMBER})(?:\s*/\s*(?P<divisor>{_NUMBER}))?)"
)


def exact_answer(
    completions: Sequence[str],
    references: Sequence[str],
    *,
    pattern: str = "",
    ignore_case: bool = True,
    ignore_space: bool = True,
) -> np.ndarray:
    r"""1 where the answer in the completion is the reference's, else 0.

    references: the answers themselves, or texts in which the pattern finds them.
    pattern: a regular expression; its last match is the answer (its first group, if it has one), and without a match
      there is none: r"answer is (.*)". The empty pattern takes the whole completion.
    ignore_case: upper and lower case are the same.
    ignore_space: runs of white space are one space, and none at the ends.
    Raises: ValueError if the pattern is no regular expression, or the sizes differ.
    """
    find = _finder(pattern)

    def plain(text: str) -> str:
        text = " ".join(text.split()) if ignore_space else text
        return text.casefold() if ignore_case else text

    def right(completion: str, reference: str) -> bool:
        answer, wanted = find(completion), find(reference)
        return answer is not None and plain(answer) == plain(
            reference if wanted is None else wanted
        )

    pairs = zip(completions, references, strict=True)
    return np.array([right(c, r) for c, r in pairs], np.float32)


def numeric_answer(
    completions: Sequence[str],
    references: Sequence[str],
    *,
    pattern: str = "",
    tolerance: float = 0.0,
) -> np.ndarray:
    """1 where the last number of the completion is the last of the reference, within a tolerance; else 0.

    Numbers may have a sign, thousands separated by commas, decimals, an exponent, a divisor (3/4, \\frac{3}{4}) or a
    currency's sign before them; what follows (%, km) does not count. They are compared exactly, without rounding.
    pattern: where to look, as in `exact_answer`: the last number of the pattern's last match.
    tolerance: largest difference that is still right, >= 0.
    Raises: ValueError if it is negative, the pattern is no regular expression, the sizes differ, or references have
      no number.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    find = _finder(pattern)
    wanted = [_number(r if find(r) is None else find(r)) for r in references]
    known = [w for w in wanted if w is not None]
    if len(known) < len(wanted):
        raise ValueError(f"{len(wanted) - len(known)} of {len(wanted)} references have no number")
    slack = Fraction(str(tolerance))

    def right(completion: str, wanted: Fraction) -> bool:
        number = _number(find(completion))
        return number is not None and abs(number - wanted) <= slack

    pairs = zip(completions, known, strict=True)
    return np.array([right(c, w) for c, w in pairs], np.float32)


def _finder(pattern: str) -> Callable[[str], str | None]:
    """Takes a text to its last match; to itself with an empty pattern."""
    if not pattern:
        return lambda text: text
    found = compiled(pattern)

    def last(text: str) -> str | None:
        match = None
        for match in found.finditer(text):  # noqa: B007 (the last one is wanted)
            pass
        return match and match[min(found.groups, 1)]

    return last


def _number(text: str | None) -> Fraction | None:
    """The last number of a text; None without one, or where it is divided by 0 or has thousands of digits."""
    matches = list(_VALUE.finditer(text or ""))
    if not matches:
        return None
    sign, over, under, number, divisor = matches[-1].group(
        "sign", "over", "under", "number", "divisor"
    )
    exact = lambda digits: Fraction(digits.replace(",", ""))
    try:
        value = exact(over or number) / exact(under or divisor or "1")
    except (ValueError, ZeroDivisionError):
        return None
    return -value if sign.startswith(("-", "−")) else value

"""Where a decoded text ends: at the first of its stop strings. On the host, after decoding."""

from collections.abc import Callable, Sequence


def truncate(text: str, stops: Sequence[str]) -> str:
    """The text before its first stop string; all of it where there is none.

    Raises: ValueError if a stop string is empty.
    """
    _check(stops)
    found = [text.find(stop) for stop in stops]
    return text[: min((at for at in found if at >= 0), default=len(text))]


def kept(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str], stops: Sequence[str]
) -> int:
    """How many tokens it takes until the text holds a stop string; all where it never does.

    What is trained on ends there: the model drew those tokens, the last of which completes the stop string.
    decode: tokens -> text; more tokens only make it longer, but for characters cut in half at its end.
    Raises: ValueError if a stop string is empty.
    """
    _check(stops)
    holds = lambda count: any(stop in decode(tokens[:count]) for stop in stops)
    if not holds(len(tokens)):
        return len(tokens)
    few, many = 0, len(tokens)  # few do not hold one, many do
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if holds(middle) else (middle, many)
    return many


def _check(stops: Sequence[str]) -> None:
    if not all(stops):
        raise ValueError("a stop string must not be empty")

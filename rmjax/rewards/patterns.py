"""Regular expressions that a config holds."""

import re


def compiled(pattern: str) -> re.Pattern[str]:
    """The expression, of Python's re.

    Raises: ValueError if it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error

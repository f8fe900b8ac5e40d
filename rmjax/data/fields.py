"""Fields of one record, each checked as it is taken; what is wrong with one is said by name."""

import math
from collections.abc import Callable, Mapping
from typing import Any


class Bad(Exception):
    """What is wrong with one line, its field named."""


def string(row: Mapping, field: str, default: str | None = None) -> str:
    """Raises: Bad unless the field is a string."""
    value = row.get(field, default)
    if not isinstance(value, str):
        raise Bad(f'field "{field}": must be a string, not {value!r}')
    return value


def filled(row: Mapping, field: str) -> str:
    """Raises: Bad unless the field is a string that holds more than spaces."""
    value = string(row, field)
    if not value.strip():
        raise Bad(f'field "{field}": is empty')
    return value


def number(
    row: Mapping,
    field: str,
    default: float | None = None,
    good: Callable[[float], bool] = lambda v: True,
    what: str = "a finite number",
) -> float:
    """Raises: Bad unless the field is a finite number, and `good`."""
    value = row.get(field, default)
    if not finite(value) or not good(value):
        raise Bad(f'field "{field}": must be {what}, not {value!r}')
    return float(value)


def numbers(row: Mapping, field: str, count: int | None = None) -> tuple[float, ...]:
    """Raises: Bad unless the field is a list of finite numbers, `count` of them."""
    values = row.get(field)
    if not isinstance(values, list | tuple) or not all(finite(v) for v in values):
        raise Bad(f'field "{field}": must be a list of numbers')
    if count is not None and len(values) != count:
        raise Bad(f'field "{field}": has {len(values)} numbers where there are {count} texts')
    return tuple(float(v) for v in values)


def finite(value: Any) -> bool:
    """Whether this is a number, and neither infinite nor true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

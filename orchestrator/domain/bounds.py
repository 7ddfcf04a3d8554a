"""Names, counts and times that a definition may hold: refused when it is built, by their place."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeGuard

from orchestrator.errors import DefinitionError

NAME_LIMIT = 100

LONGEST = timedelta(days=36_500)
"""A hundred years; a date so far ahead can still be written."""

MOST = 1_000_000_000
"""What fits a column of the database, with room to count further."""

LARGEST = 1e15
"""Up to here every whole number is a float of its own, so that sums are exact."""

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_FURTHER = _FIRST | frozenset(".-")


def checked_name(name: object, kind: str) -> str:
    """*name*, which paths, keys, metrics and topics will carry. Raises DefinitionError."""
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= NAME_LIMIT
        or name[0] not in _FIRST
        or not set(name) <= _FURTHER
    ):
        raise DefinitionError(
            f"{kind} name {shown(name)}: use 1 to {NAME_LIMIT} letters, digits, '_', '-' or '.', "
            "the first a letter, a digit or '_'"
        )
    return name


def checked_duration(value: object, place: str, *, zero: bool = False) -> timedelta:
    """*value* (seconds or a timedelta) above 0, or 0 too. Raises DefinitionError."""
    if isinstance(value, timedelta):
        length = value
    elif is_number(value):
        length = timedelta(seconds=value) if _fits(value) else -LONGEST
    else:
        raise DefinitionError(f"{place} is {shown(value)}; give seconds or a timedelta")
    if length > LONGEST or length < timedelta(0) or (not length and not zero):
        least = "0 or more" if zero else "more than 0"
        raise DefinitionError(
            f"{place} is {shown(value)}; give {least} seconds, at most {LONGEST.days:,} days"
        )
    return length


def checked_count(value: object, place: str, *, least: int = 1, most: int = MOST) -> int:
    """*value*, a whole number within bounds. Raises DefinitionError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DefinitionError(
            f"{place} is {shown(value)}; give a whole number from {least:,} to {most:,}"
        )
    return value


def checked_number(value: object, place: str, *, least: float) -> float:
    """*value*, a finite number that is not below *least*. Raises DefinitionError."""
    if not is_number(value) or not least <= value <= LARGEST:
        raise DefinitionError(
            f"{place} is {shown(value)}; give a number from {least:g} to {LARGEST:g}"
        )
    return value


def checked_errors(value: object, place: str) -> tuple[type[BaseException], ...]:
    """*value*, a tuple of exception classes. Raises DefinitionError."""
    if isinstance(value, type):
        raise DefinitionError(f"{place} is one class; write a tuple: ({value.__name__},)")
    if not isinstance(value, tuple) or not all(map(_is_error, value)):
        raise DefinitionError(
            f"{place} is {shown(value)}; give a tuple of exception classes: (ConnectionError,)"
        )
    return value


def checked_reason(value: object, place: str) -> str:
    """*value*, which people will read. Raises DefinitionError."""
    if not isinstance(value, str) or not value.strip():
        raise DefinitionError(f"{place} needs a reason that a reader can judge")
    return value


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether *value* is a number; what is true or false is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def spell_number(value: float) -> str:
    """A number as people write it: `5`, `0.25`, `172801`, never `1.7e+05`."""
    text = f"{value:.6f}"
    return text.rstrip("0").rstrip(".")


def spell_seconds(value: timedelta | float) -> str:
    """A time as a number of seconds."""
    return spell_number(value.total_seconds() if isinstance(value, timedelta) else value)


def shown(value: object, most: int = 120) -> str:
    """What *value* looks like, cut in the middle when it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return f"{type(value).__name__} that is too large to print"
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def _fits(value: float) -> bool:
    return 0 <= value <= LONGEST.total_seconds()  # also false for what is not a number


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)

"""The state of fake services as flat text, so that two moments can be compared line by line."""

from __future__ import annotations

import enum
import sys
from collections import abc
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_DEPTH = 8
_LINE = 80

Snapshot = dict[str, str]
"""What is where: a place such as `FakeBank.charges['k1']`, and the value there."""

Moved = dict[str, tuple[str | None, str | None]]
"""The places that differ between two moments, with their values then and then."""


def snapshot(world: Mapping[str, Any], ignore: Collection[str] = ()) -> Snapshot:
    """All that is to be seen in the objects of *world*; attributes named in *ignore* are left out.

    Objects of the standard library that are no plain data (locks, connections) are not looked into.
    """
    found: Snapshot = {}
    for name, thing in world.items():
        for place, text in _look(thing, name, frozenset(ignore), ()):
            found[place] = text
    return found


def moved(before: Snapshot, after: Snapshot) -> Moved:
    """What changed."""
    return {
        place: (before.get(place), after.get(place))
        for place in sorted(before.keys() | after.keys())
        if before.get(place) != after.get(place)
    }


def told(moved: Moved) -> tuple[str, ...]:
    """What changed in words, a line for each place."""
    lines = (
        f"{at}: {old or '(nothing)'} → {new or '(nothing)'}" for at, (old, new) in moved.items()
    )
    return tuple(_short(line, 2 * _LINE) for line in lines)


def _look(
    thing: Any, place: str, ignore: frozenset[str], above: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    if id(thing) in above or len(above) > _DEPTH:
        return
    above = (*above, id(thing))
    if thing is None or isinstance(thing, str | int | float | bytes | complex | enum.Enum):
        yield place, _short(repr(thing))
    elif isinstance(thing, abc.Mapping):
        yield place, f"{len(thing)} entries"
        for key, value in thing.items():
            yield from _look(value, f"{place}[{_short(repr(key))}]", ignore, above)
    elif isinstance(thing, abc.Collection) and not isinstance(thing, type):
        yield from _look_at_bag(thing, place, ignore, above)
    elif _is_opaque(thing):
        if _has_own_repr(thing):
            yield place, _short(repr(thing))
    else:
        for name, value in _attributes(thing):
            if name not in ignore:
                yield from _look(value, f"{place}.{name}", ignore, above)


def _look_at_bag(
    things: Collection[Any], place: str, ignore: frozenset[str], above: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    """Items as a bag: in which order parallel steps came is not what differs between two ends."""
    yield place, f"{len(things)} items"
    inside = sorted(
        ", ".join(text for _, text in _look(thing, "", ignore, above)) for thing in things
    )
    for number, text in enumerate(inside):
        yield f"{place}[{number}]", _short(text)


def _is_opaque(thing: Any) -> bool:
    kind = type(thing)
    root = kind.__module__.partition(".")[0]
    return isinstance(thing, type) or callable(thing) or root in sys.stdlib_module_names


def _has_own_repr(thing: Any) -> bool:
    """Whether its text says what it is (a date), not where it is (a lock at 0x...)."""
    return not callable(thing) and " at 0x" not in repr(thing)


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    names = dict.fromkeys(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names.update(dict.fromkeys((slots,) if isinstance(slots, str) else slots))
    for name in names:
        if not name.startswith("__") and hasattr(thing, name):
            yield name, getattr(thing, name)


def _short(text: str, limit: int = _LINE) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"

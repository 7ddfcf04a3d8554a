"""Looking into values: what JSON cannot hold, what changed on the way, what has no order."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_LISTS = (list, tuple, set, frozenset)
_CONTAINERS = (dict, *_LISTS)
_LOOKED_AT = 100_000


def infinite(value: Any) -> str | None:
    """The place of a NaN or an infinity, which pydantic writes as null."""
    return _first(value, _is_infinite) if _holds_infinite(value) else None


def _is_infinite(leaf: Any) -> bool:
    return isinstance(leaf, float) and not math.isfinite(leaf)


def _holds_infinite(value: Any) -> bool:
    """The same question without the place, because it is asked far more often."""
    kind = type(value)
    if kind is str or kind is int or value is None or kind is bool:
        return False
    if isinstance(value, float):
        return not math.isfinite(value)
    parts = value.values() if isinstance(value, dict) else value
    if not isinstance(value, _CONTAINERS):
        parts = (_named(value) or {}).values()
    return any(map(_holds_infinite, parts))


def unwritable(value: Any) -> str | None:
    """The first part that has no JSON form, and where it is."""
    found: list[str] = []

    def refuses(leaf: Any) -> bool:
        try:
            to_json(leaf)
        except Exception as error:  # noqa: BLE001 - a model's serializer is user code
            found.append(_reason(leaf, error))
        return bool(found)

    place = _first(value, refuses)
    return None if place is None else f"{place} {found[0]}"


def _reason(leaf: Any, error: Exception) -> str:
    if isinstance(leaf, str):
        return "holds half a surrogate pair, which is not valid Unicode"
    if isinstance(leaf, bytes):
        return "holds bytes that are not UTF-8; record them as base64 text"
    if isinstance(leaf, int | float):
        return f"is a number that cannot be written ({str(error).splitlines()[0]})"
    return f"is a {type(leaf).__name__}, which has no JSON form"


def _first(value: Any, wanted: Callable[[Any], bool]) -> str | None:
    """The place of the first leaf that is wanted. Looks at a bounded number of parts."""
    waiting: list[tuple[str, Any]] = [("$", value)]
    for _ in range(_LOOKED_AT):
        if not waiting:
            break
        place, part = waiting.pop()
        inside = _inside(part)
        if inside is None:
            if wanted(part):
                return place
        else:
            waiting.extend(reversed([(place + step, child) for step, child in inside]))
    return None


def _inside(part: Any) -> Iterator[tuple[str, Any]] | None:
    """The parts of a container by their place in it; None for a leaf."""
    if isinstance(part, str | int | float | None):
        return None
    if isinstance(part, dict):
        return ((f".{key}", child) for key, child in part.items())
    if isinstance(part, _LISTS):
        return ((f"[{i}]", child) for i, child in enumerate(part))
    if (named := _named(part)) is not None:
        return ((f".{name}", child) for name, child in named.items())
    return None


def _named(part: Any) -> Mapping[str, Any] | None:
    """The fields of a model or a dataclass."""
    if isinstance(part, BaseModel):
        extra = part.__pydantic_extra__
        return {**part.__dict__, **extra} if extra else part.__dict__
    if is_dataclass(part) and not isinstance(part, type):
        return {f.name: getattr(part, f.name, None) for f in fields(part)}
    return None


def canonical(written: bytes, value: Any) -> bytes:
    """*written*, the JSON text of *value*, with keys and the members of sets in order."""
    return _dumps(_ordered(json.loads(written), value)).encode()


def _ordered(node: Any, value: Any) -> Any:
    if isinstance(node, dict):
        parts = _values_of(node, value)
        names = node if isinstance(value, OrderedDict) else sorted(node)
        return {name: _ordered(node[name], parts.get(name)) for name in names}
    if not isinstance(node, list):
        return node
    if isinstance(value, set | frozenset):
        # Which member became which item is lost, but they are of one kind.
        member = next(iter(value), None)
        return sorted((_ordered(item, member) for item in node), key=_dumps)
    if isinstance(value, list | tuple) and len(value) == len(node):
        return [_ordered(item, part) for item, part in zip(node, value, strict=True)]
    return [_ordered(item, None) for item in node]


def _values_of(node: dict[str, Any], value: Any) -> Mapping[str, Any]:
    """The parts of *value* under the names that they have in its JSON object."""
    if isinstance(value, dict):
        return dict(zip(node, value.values(), strict=True)) if len(node) == len(value) else {}
    return _named(value) or {}


def differing(value: Any, again: Any, place: str = "$") -> str | None:
    """Where *again*, read from the text of *value*, is another value; None when nowhere.

    What an `Any` holds comes back as plain JSON: a list for a tuple, an object for a model.
    """
    if isinstance(value, list | tuple) and isinstance(again, list | tuple):
        if len(value) != len(again):
            return place
        pairs = ((f"{place}[{i}]", a, b) for i, (a, b) in enumerate(zip(value, again, strict=True)))
    elif isinstance(value, dict) and isinstance(again, dict):
        if value.keys() != again.keys():
            return place
        pairs = ((f"{place}.{key}", part, again[key]) for key, part in value.items())
    elif (named := _named(value)) is not None:
        # Equal text has shown that a model is the same by its own account, and no less as a dict.
        theirs = _named(again)
        if theirs is None:
            return None if isinstance(again, dict) else place
        pairs = ((f"{place}.{n}", part, theirs[n]) for n, part in named.items() if n in theirs)
    else:
        return None if _same(value, again) else place
    return next((where for p, a, b in pairs if (where := differing(a, b, p)) is not None), None)


def _same(value: Any, again: Any) -> bool:
    if value is again or bool(value == again):
        return True
    # A type without an equality of its own says nothing; one that became plain text does.
    compares = any("__eq__" in vars(kind) for kind in type(value).__mro__[:-1])
    return type(value) is type(again) and not compares

"""How values of one annotation are written and read, worked out once for each annotation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from pydantic import TypeAdapter

_LOOSE = frozenset(
    {
        "any",
        "dict",
        "set",
        "frozenset",
        "is-instance",
        "function-plain",
        "json-or-python",
        "generator",
    }
)
_SKIPPED = frozenset({"metadata", "cls", "ref", "config", "default"})


@dataclass(frozen=True, slots=True)
class Form:
    """`loose`: parts may come in any order or be of any type. `plain`: nothing but JSON types."""

    name: str
    write: Callable[[Any], bytes]
    write_strictly: Callable[[Any], bytes]
    read: Callable[..., Any]
    plain: bool
    loose: bool
    may_hold_floats: bool


def form_of(annotation: Any) -> Form:
    """The form of *annotation*, kept for the next time."""
    try:
        return _kept(annotation)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return _made(annotation)


def _made(annotation: Any) -> Form:
    adapter = TypeAdapter(annotation)
    kinds = set(_kinds(adapter.core_schema))
    loose = not kinds.isdisjoint(_LOOSE)
    # round_trip leaves out computed fields, which are computed again when it is read. Warnings
    # cost more than all the rest; reading back finds what they would tell.
    write = adapter.serializer.to_json
    return Form(
        spell(annotation),
        partial(write, warnings=False, round_trip=True),
        partial(write, warnings="error", round_trip=True),
        adapter.validator.validate_json,
        plain=annotation is Any or annotation == dict[str, Any],
        loose=loose,
        may_hold_floats=loose or "float" in kinds,
    )


_kept = lru_cache(maxsize=4096)(_made)


def _kinds(schema: object) -> Iterator[str]:
    """All kinds of schema inside *schema*."""
    if isinstance(schema, dict):
        if isinstance(kind := schema.get("type"), str):
            yield kind
        if "allow" in (schema.get("extra_behavior"), schema.get("extra_fields_behavior")):
            yield "any"
        if "config" in schema and (schema["config"] or {}).get("extra_fields_behavior") == "allow":
            yield "any"
        for name, part in schema.items():
            if name not in _SKIPPED:
                yield from _kinds(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _kinds(part)


def spell(annotation: Any) -> str:
    """An annotation as its author wrote it, nearly."""
    if type(annotation) is type or not hasattr(annotation, "__args__"):
        return getattr(annotation, "__name__", None) or str(annotation)
    return str(annotation).replace("typing.", "")

"""A simple value for an annotation, always the same one: what `auto=True` lets a step return."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import types
import typing
import uuid
from collections import abc
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from orchestrator.testing.virtual_time import START, SimulationError

_DEPTH = 12

_PLAIN: dict[Any, Any] = {
    Any: None,
    None: None,
    type(None): None,
    object: None,
    bool: True,
    int: 1,
    float: 1.0,
    complex: 1 + 0j,
    str: "text",
    bytes: b"",
    Decimal: Decimal(1),
    uuid.UUID: uuid.UUID(int=1),
    dt.datetime: START,
    dt.date: START.date(),
    dt.time: START.timetz(),
    dt.timedelta: dt.timedelta(0),
    PurePosixPath: PurePosixPath("path"),
    list: [],
    dict: {},
    set: set(),
    frozenset: frozenset(),
    tuple: (),
}


def value_of(annotation: Any, name: str = "", depth: int = 0) -> Any:
    """A value of the type. SimulationError, naming the place, when none can be made up."""
    if depth > _DEPTH:
        raise SimulationError(f"{name or annotation!r} holds itself without end")
    if annotation is str:
        return name or "text"
    if _is_known(annotation):
        return _PLAIN[annotation]
    if isinstance(annotation, typing.NewType):
        return value_of(annotation.__supertype__, name, depth)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _generic(annotation, origin, arguments, name, depth)
    if isinstance(annotation, type):
        return _instance(annotation, depth)
    raise SimulationError(f"{_spell(annotation)} says too little")


def _is_known(annotation: Any) -> bool:
    try:
        return annotation in _PLAIN
    except TypeError:
        return False


def _generic(
    annotation: Any, origin: Any, arguments: tuple[Any, ...], name: str, depth: int
) -> Any:
    if origin is typing.Annotated:
        return _within(value_of(arguments[0], name, depth), arguments[1:], name)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        known = [kind for kind in arguments if kind is not type(None)]
        return value_of(known[0], name, depth + 1)
    if origin is tuple:
        kinds = arguments[:1] if arguments[-1:] == (...,) else arguments
        return tuple(value_of(kind, name, depth + 1) for kind in kinds)
    if origin in (dict, abc.Mapping, abc.MutableMapping):
        return {value_of(arguments[0], name, depth + 1): value_of(arguments[1], name, depth + 1)}
    if isinstance(origin, type) and issubclass(origin, abc.Iterable):
        one = [value_of(arguments[0], name, depth + 1)] if arguments else []
        return one if origin not in (set, frozenset, abc.Set) else set(one)
    return _instance(annotation if hasattr(annotation, "model_fields") else origin, depth)


def _instance(kind: Any, depth: int) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    try:
        fields = _fields(kind, depth)
    except (TypeError, NameError) as error:
        raise SimulationError(f"the fields of {_spell(kind)} cannot be read: {error}") from error
    try:
        return kind(**fields)
    except Exception as error:
        raise SimulationError(f"{_spell(kind)} refuses {fields}: {error}") from error


def _fields(kind: Any, depth: int) -> dict[str, Any]:
    """Values for what has no default."""
    if hasattr(kind, "model_fields"):  # pydantic, known by its looks: nothing here needs it
        return {
            (info.alias or name): _within(
                value_of(info.annotation, name, depth + 1), info.metadata, name
            )
            for name, info in kind.model_fields.items()
            if info.is_required()
        }
    hints = typing.get_type_hints(kind, include_extras=True)
    if dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return {
            f.name: value_of(hints[f.name], f.name, depth + 1)
            for f in dataclasses.fields(kind)
            if f.init and f.default is missing and f.default_factory is missing
        }
    # Typed dictionaries are known by their looks too: there is more than one kind of them.
    if hasattr(kind, "__total__") or hasattr(kind, "_fields"):
        given = getattr(kind, "_field_defaults", {})
        return {n: value_of(h, n, depth + 1) for n, h in hints.items() if n not in given}
    raise SimulationError(f"{_spell(kind)} is neither plain data, a dataclass nor a pydantic model")


def _within(value: Any, limits: abc.Iterable[Any], name: str) -> Any:
    """The value, moved inside of the limits that are stated beside the type."""
    for limit in _flat(limits):
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            value = _moved(value, limit)
        if isinstance(value, str | list):
            least, most = getattr(limit, "min_length", None), getattr(limit, "max_length", None)
            while least is not None and 0 < len(value) < least:
                value = value * 2
            if most is not None:
                value = value[:most]
    return value


def _flat(limits: abc.Iterable[Any]) -> abc.Iterator[Any]:
    for limit in limits:
        yield from getattr(limit, "metadata", None) or [limit]


def _moved(value: Any, limit: Any) -> Any:
    one = type(value)(1)
    if (above := getattr(limit, "gt", None)) is not None and not value > above:
        value = type(value)(above) + one
    if (least := getattr(limit, "ge", None)) is not None and value < least:
        value = type(value)(least)
    if (below := getattr(limit, "lt", None)) is not None and not value < below:
        value = type(value)(below) - one
    if (most := getattr(limit, "le", None)) is not None and value > most:
        value = type(value)(most)
    return value


def _spell(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or repr(annotation)

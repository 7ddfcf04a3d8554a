"""Reading annotations: what a function takes and gives, and whether two neighbours can meet."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from orchestrator.errors import DefinitionError

_WANTED = {1: "(input)", 2: "(input, ctx)", 3: "(input, ctx, db)"}


def read_signature(fn: Callable[..., Any], name: str, *, parameters: int) -> tuple[Any, Any]:
    """The annotations of the first parameter and of the result; Any where there are none."""
    try:
        found = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return Any, Any
    required = [
        p
        for p in found
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    positional = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in found)
    if len(required) > parameters or (len(positional) < parameters and not takes_any):
        wanted = _WANTED[parameters]
        raise DefinitionError(
            f"{name} takes {len(positional)} parameters; it is called with {wanted}"
        )
    try:
        # A partial or another callable object has no annotations to read: nothing can be told.
        hints = typing.get_type_hints(fn) if hasattr(fn, "__annotations__") else {}
    except (NameError, TypeError) as error:
        raise DefinitionError(
            f"the annotations of {name} cannot be read ({error}); define its models at module level"
        ) from error
    first = positional[0].name if positional else ""
    return hints.get(first, Any), hints.get("return", Any)


def name_of(fn: Callable[..., Any], otherwise: str) -> str:
    """What messages and events call *fn*; a lambda has no name of its own."""
    name = str(getattr(fn, "__name__", otherwise))
    return otherwise if name == "<lambda>" else name


def counts_parameters(fn: Callable[..., Any], name: str, parameters: int) -> None:
    """Raise DefinitionError when *fn* cannot be called with so many positional arguments."""
    try:
        inspect.signature(fn).bind(*[None] * parameters)
    except TypeError:
        wanted = _WANTED[parameters]
        raise DefinitionError(f"{name} is called with {wanted}, which it does not take") from None
    except ValueError:
        return  # a built-in function does not say what it takes


def may_fit(gives: Any, takes: Any) -> bool:
    if gives is Any or takes is Any or isinstance(gives, TypeVar) or isinstance(takes, TypeVar):
        return True
    gives_origin, takes_origin = typing.get_origin(gives), typing.get_origin(takes)
    if gives_origin is tuple and takes_origin is tuple:
        ours, theirs = typing.get_args(gives), typing.get_args(takes)
        if Ellipsis in ours or Ellipsis in theirs:
            return True
        return len(ours) == len(theirs) and all(map(may_fit, ours, theirs))
    if isinstance(gives, type) and isinstance(takes, type) and not (gives_origin or takes_origin):
        return _is_kind_of(gives, takes) or (gives is int and takes in (float, complex))
    if gives_origin is tuple and isinstance(takes, type):
        return issubclass(tuple, takes)
    if takes_origin is tuple and isinstance(gives, type):
        return issubclass(gives, tuple)
    return True


def _is_kind_of(gives: type, takes: type) -> bool:
    try:
        return issubclass(gives, takes)
    except TypeError:
        return True  # a protocol or a TypedDict, which cannot tell


def spell(annotation: Any) -> str:
    return (
        annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")
    )

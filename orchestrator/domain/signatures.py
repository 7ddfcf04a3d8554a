"""Reading annotations: what a function takes and gives, and whether two neighbours can meet."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, TypeVar

from orchestrator.domain.bounds import shown
from orchestrator.errors import DefinitionError

_CALLED = {1: "(input)", 2: "(input, ctx)", 3: "(input, ctx, db)"}


def read_signature(
    fn: Callable[..., Any], name: str, *, parameters: int, called: str = ""
) -> tuple[Any, Any]:
    """The annotations of the first parameter and of the result; Any where there are none."""
    counts_parameters(fn, name, parameters, called)
    if isinstance(fn, type):
        return Any, fn
    hints = _hints(fn, name)
    names = positional(fn)
    return hints.get(names[0], Any) if names else Any, hints.get("return", Any)


def read_plain(
    fn: object, place: str, *, parameters: int = 1, called: str = "", mend: str = ""
) -> tuple[Any, Any]:
    """As read_signature, of a plain function: what it does leaves no trace but its result.

    Raises DefinitionError for what cannot be called, or gives a coroutine or a generator.
    """
    called = called or _CALLED[parameters]
    if not callable(fn):
        raise DefinitionError(f"{place} is {shown(fn)}; give a plain function {called}")
    name = name_of(fn, place)
    if gives_later(fn):
        mend = mend or "let a @step before it do what has to be awaited"
        raise DefinitionError(f"{place}: {name} is async or a generator; {mend}")
    where = place if name == place else f"{place}: {name}"
    return read_signature(fn, where, parameters=parameters, called=called)


def check_plain(
    fn: object,
    place: str,
    given: Any,
    wanted: Any = Any,
    *,
    parameters: int = 1,
    called: str = "",
    common: bool = False,
) -> None:
    """Refuse what is not a plain function of *given*, or does not give what is *wanted*.

    *common* says that it shares its input with other parts, which may take more than it does.
    """
    takes, gives = read_plain(fn, place, parameters=parameters, called=called)
    name = name_of(fn, "it")
    if not may_fit(given, takes) and not (common and may_fit(takes, given)):
        raise DefinitionError(
            f"{place}: {name} takes {spell(takes)}, but it is called with {spell(given)}; "
            "let it take that"
        )
    if not may_fit(gives, wanted):
        raise DefinitionError(
            f"{place}: {name} gives {spell(gives)}, but {spell(wanted)} is needed; let it give that"
        )


def gives_later(fn: Callable[..., Any]) -> bool:
    """Whether a call of *fn* gives something that has to be awaited or gone through."""
    return inspect.iscoroutinefunction(_called(fn)) or is_generator(fn)


def is_generator(fn: Callable[..., Any]) -> bool:
    """Whether *fn* yields."""
    call = _called(fn)
    return inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call)


def counts_parameters(fn: Callable[..., Any], name: str, parameters: int, called: str = "") -> None:
    """Raise DefinitionError when *fn* cannot be called with so many positional arguments."""
    if not accepts(fn, parameters):
        wanted = called or _CALLED[parameters]
        there = ", ".join(str(p).partition(":")[0].partition("=")[0] for p in _parameters(fn))
        raise DefinitionError(f"{name} takes ({there}), but it is called with {wanted}")


def accepts(fn: Callable[..., Any], parameters: int) -> bool:
    """Whether *fn* can be called with so many positional arguments, as far as it tells."""
    try:
        inspect.signature(fn).bind(*[None] * parameters)
    except TypeError:
        return False
    except ValueError:
        return True  # a built-in function does not say what it takes
    return True


def positional(fn: Callable[..., Any]) -> list[str]:
    """The names of the parameters that can be given by their position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in _parameters(fn) if p.kind in kinds]


def annotation_of(fn: Callable[..., Any], index: int, name: str) -> Any:
    """The annotation of the parameter at *index*; None when there is none."""
    names = positional(fn)
    return _hints(fn, name).get(names[index]) if index < len(names) else None


def name_of(fn: object, otherwise: str) -> str:
    """What messages and events call *fn*; a lambda has no name of its own."""
    name = str(getattr(fn, "__name__", otherwise))
    return otherwise if name == "<lambda>" else name


def may_fit(gives: Any, takes: Any) -> bool:
    """Whether a value of the one type may be one of the other; true where it cannot be told."""
    gives, takes = _bare(gives), _bare(takes)
    if gives is Any or takes is Any or isinstance(gives, TypeVar) or isinstance(takes, TypeVar):
        return True
    if _is_union(gives) or _is_union(takes):
        return any(may_fit(one, other) for one in _members(gives) for other in _members(takes))
    ours, theirs = _class_of(gives), _class_of(takes)
    if ours is None or theirs is None:
        return True
    if ours is tuple and theirs is tuple:
        return _tuples_fit(typing.get_args(gives), typing.get_args(takes))
    if not _is_kind_of(ours, theirs) and not _same_family(ours, theirs):
        return ours is int and theirs in (float, complex)
    return _parts_fit(gives, takes, family=_same_family(ours, theirs))


def narrowest(annotations: Iterable[Any]) -> Any:
    """The one that fits all others, for what goes into each of several parts."""
    return functools.reduce(lambda one, other: other if _narrower(other, one) else one, annotations)


def widest(annotations: Iterable[Any]) -> Any:
    """The one that all others fit, for what comes out of one of several parts."""
    return functools.reduce(lambda one, other: other if _wider(other, one) else one, annotations)


def spell(annotation: Any) -> str:
    """An annotation as people write it."""
    if annotation is types.NoneType or annotation is Ellipsis:
        return "None" if annotation is types.NoneType else "..."
    if _is_union(annotation):
        return " | ".join(map(spell, typing.get_args(annotation)))
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(origin, type) and parts and not isinstance(parts[0], list):
        return f"{origin.__name__}[{', '.join(map(spell, parts))}]"
    if isinstance(annotation, type | typing.NewType) and not parts:
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _called(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs when *fn* is called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    call: Callable[..., Any] = type(fn).__call__
    return fn if inspect.isroutine(fn) or isinstance(fn, type) else call


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return []


def _hints(fn: Callable[..., Any], name: str) -> dict[str, Any]:
    # A partial or another callable object has no annotations of its own: nothing can be told.
    if not inspect.isroutine(fn) or not hasattr(fn, "__annotations__"):
        return {}
    try:
        try:
            return typing.get_type_hints(fn)
        except TypeError:
            return _hints_one_by_one(fn)
    except (NameError, TypeError, AttributeError) as error:
        raise DefinitionError(
            f"the annotations of {name} cannot be read ({error}); define its models at module level"
        ) from error


def _hints_one_by_one(fn: Callable[..., Any]) -> dict[str, Any]:
    """What is generic for checkers only, as asyncpg's Connection is, without its arguments."""
    there = getattr(inspect.unwrap(fn), "__globals__", {})

    def read(annotation: object) -> Any:
        alone = types.SimpleNamespace(__annotations__={"it": annotation}, __globals__=there)
        return typing.get_type_hints(alone)["it"]

    hints: dict[str, Any] = {}
    for name, annotation in fn.__annotations__.items():
        try:
            hints[name] = read(annotation)
        except TypeError:
            if not isinstance(annotation, str) or "[" not in annotation:
                raise
            hints[name] = read(annotation.partition("[")[0])
    return hints


def _bare(annotation: Any) -> Any:
    while isinstance(annotation, typing.NewType):
        annotation = annotation.__supertype__
    return types.NoneType if annotation is None else annotation


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _members(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if _is_union(annotation) else (annotation,)


def _class_of(annotation: Any) -> type | None:
    found = typing.get_origin(annotation) or annotation
    # What a callable takes is not covariant; nothing can be told of it here.
    return found if isinstance(found, type) and found.__name__ != "Callable" else None


def _parts_fit(gives: Any, takes: Any, *, family: bool) -> bool:
    """Whether the items fit of two collections, or the parts of two uses of one generic class."""
    ours, theirs = typing.get_args(gives), typing.get_args(takes)
    if len(ours) != len(theirs) or Ellipsis in ours:
        return True
    if family:
        return all(map(may_fit, ours, theirs))
    same = typing.get_origin(gives) is typing.get_origin(takes)
    return not same or all(map(_either_way, ours, theirs))


def _either_way(one: Any, other: Any) -> bool:
    return may_fit(one, other) or may_fit(other, one)


def _tuples_fit(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    if not ours or not theirs or Ellipsis in ours or Ellipsis in theirs:
        return True
    return len(ours) == len(theirs) and all(map(may_fit, ours, theirs))


def _is_kind_of(gives: type, takes: type) -> bool:
    try:
        return issubclass(gives, takes)
    except TypeError:
        return True  # a protocol or a TypedDict, which cannot tell


def _same_family(gives: type, takes: type) -> bool:
    """Whether both are written the same way in JSON, whatever class is read back."""
    return any(
        issubclass(gives, family) and issubclass(takes, family)
        for family in (Sequence, Mapping, Set)
        if not issubclass(gives, str | bytes) and not issubclass(takes, str | bytes)
    )


def _narrower(one: Any, other: Any) -> bool:
    """Whether *one* says more than *other*."""
    if one is Any or other is Any:
        return one is not Any
    return may_fit(one, other) and not may_fit(other, one)


def _wider(one: Any, other: Any) -> bool:
    """Whether *one* covers *other*; what is known goes before what is not."""
    if one is Any or other is Any:
        return one is not Any
    return may_fit(other, one) and not may_fit(one, other)

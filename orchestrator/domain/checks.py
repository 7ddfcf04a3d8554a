"""What is refused when a saga is built: the place, what is wrong there, and the mend."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from orchestrator.domain.bounds import shown
from orchestrator.domain.branching import Fallback
from orchestrator.domain.definition import Primitive
from orchestrator.domain.expansion import expand
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.guards import Budget, Cache, CircuitBreaker, RateLimit
from orchestrator.domain.pivots import check_pivots, has_pivot, parts_before_pivot
from orchestrator.domain.saga import Child, Saga, walk
from orchestrator.domain.signatures import spell
from orchestrator.domain.steps import Step
from orchestrator.domain.waiting import Signal, Wait
from orchestrator.domain.wrappers import Pivot, Retry, Scope, Timeout, below_adapters, is_composite
from orchestrator.errors import DefinitionError, DefinitionWarning

DEPTH_LIMIT = 50
"""Levels of nesting; each is a segment of every path and every key below it."""

SIZE_LIMIT = 5_000
"""Nodes of one definition. Data that is a list belongs into each()."""

CHILD_DEPTH_LIMIT = 10


def check(saga: Saga[Any, Any]) -> None:
    """Raise DefinitionError for what can never be right; warn of what may park an instance."""
    place = f"saga {saga.name!r}"
    check_depth(saga.tree, place)
    _check_parts(saga.tree, place)
    check_pivots(saga.tree, place)
    _check_family(saga)
    for problem in (*_missing_undos(saga), *_doubtful_scopes(saga)):
        if saga.strict:
            raise DefinitionError(problem)
        warnings.warn(problem, DefinitionWarning, stacklevel=4)


def check_request(node: Primitive[Any, Any]) -> None:
    """As check, of a part that the code of a flow asks for: it is no saga and has no spine."""
    if isinstance(node, Step):
        return
    place = "f.run()"
    check_depth(node, place)
    tree = expand(node)
    _check_parts(tree, place)
    for part in walk(tree):
        if isinstance(part, Pivot) or (isinstance(part, Child) and has_pivot(part.saga)):
            raise DefinitionError(
                f"{place}: {shown(part)} is a pivot, and a pivot stands on the spine of a saga "
                "only; end the flow before it: flow >> pay.pivot()"
            )


def check_depth(body: Primitive[Any, Any], place: str) -> None:
    """Refuse a tree that is too deep or too large, before anything goes down into it."""
    size = 0
    waiting = [(body, 1)]
    while waiting:
        node, level = waiting.pop()
        size += 1
        if level > DEPTH_LIMIT:
            raise DefinitionError(
                f"{place} is nested deeper than {DEPTH_LIMIT} levels at {node.label!r}; "
                "make a child saga of the inner part"
            )
        if size > SIZE_LIMIT:
            raise DefinitionError(
                f"{place} has more than {SIZE_LIMIT:,} parts; use each() over a list, or child sagas"
            )
        waiting.extend((child, level + 1) for child in node.children)


def _check_parts(tree: Primitive[Any, Any], place: str) -> None:
    _check_names(tree, place)
    _check_signals(tree, place)
    _check_caches(tree, place)
    _check_guards(tree, place)


def _check_names(tree: Primitive[Any, Any], place: str) -> None:
    seen: set[str] = set()
    for node in walk(tree):
        if not isinstance(node, Step):
            continue
        if node.name in seen:
            raise DefinitionError(
                f"{place}: step {node.name!r} stands in two places; "
                f'give the second use a name of its own: {node.name}.named("...")'
            )
        seen.add(node.name)


def _check_signals(tree: Primitive[Any, Any], place: str) -> None:
    known: dict[str, Signal[Any]] = {}
    for node in walk(tree):
        if not isinstance(node, Wait):
            continue
        signal = node.signal
        other = known.setdefault(signal.name, signal)
        if other.model != signal.model:
            raise DefinitionError(
                f"{place}: signal {signal.name!r} carries {spell(other.model)} in one place and "
                f"{spell(signal.model)} in another; give one of the two another name"
            )


def _check_caches(tree: Primitive[Any, Any], place: str) -> None:
    pivots = {below_adapters(node) for node in walk(tree) if isinstance(node, Pivot)}
    for node in walk(tree):
        if not isinstance(node, Cache):
            continue
        step = below_adapters(node)
        if not isinstance(step, Step):
            raise DefinitionError(
                f"{place}: {shown(node)} is not round a step; put the cache round the one "
                "step whose output is to be remembered"
            )
        if why := "is a pivot" if step in pivots else _why_not_cached(step):
            raise DefinitionError(
                f"{place}: {step.name!r} {why}, so its output cannot come from a cache: nothing "
                "would have happened; cache only steps that read"
            )


def _why_not_cached(step: Step[Any, Any]) -> str:
    if step.undo_of_completed is not None or step.asks is not None:
        return "is undone when the saga turns round"
    return "writes to the database" if step.transaction is not None else ""


def _check_guards(tree: Primitive[Any, Any], place: str) -> None:
    """Refuse a guard with nothing to guard, and two of one name that do not say the same."""
    known: dict[tuple[str, str], object] = {}
    for node in walk(tree):
        if not isinstance(node, CircuitBreaker | RateLimit | Budget | Cache):
            continue
        if not any(isinstance(below, Step | FlowNode) for below in walk(node)):
            raise DefinitionError(
                f"{place}: {shown(node)} guards no step; put it round the step that makes the "
                "call (a child saga has guards of its own)"
            )
        _check_guards_no_remote(node, place)
        rule: object = node.rule
        if isinstance(node, Cache):
            step = below_adapters(node)
            assert isinstance(step, Step)  # noqa: S101 - every cache is round one by now
            # What another function gave is another thing, even for the same input.
            rule = (node.rule(step.name), step.action)
        name = node.name or below_adapters(node).identity
        if rule is not None and known.setdefault((type(node).__name__, name), rule) != rule:
            raise DefinitionError(
                f"{place}: two of {type(node).__name__} are called {name!r} and do not say the "
                "same; what has one name is shared, so let them agree, or name them apart"
            )


def _check_guards_no_remote(node: Primitive[Any, Any], place: str) -> None:
    """A circuit and a cache go by what a call comes to, and a command is no call."""
    if not isinstance(node, CircuitBreaker | Cache):
        return
    for below in walk(node):
        if isinstance(below, Step) and below.remote is not None:
            raise DefinitionError(
                f"{place}: {type(node).__name__} stands round the remote step {below.name!r}, whose "
                "participant is not called from here; put it round a local step, or leave it to "
                "the participant"
            )


def _check_family(saga: Saga[Any, Any]) -> None:
    """Refuse children without end, and two sagas that go by one name and version."""
    known = {(saga.name, saga.version): saga}
    heights: dict[int, int] = {}

    def height(parent: Saga[Any, Any], line: tuple[Saga[Any, Any], ...]) -> int:
        below = 0
        for child in (node.saga for node in walk(parent.tree) if isinstance(node, Child)):
            longer = (*line, child)
            names = " > ".join(f"{one.name}/{one.version}" for one in longer)
            _check_relative(
                saga, child, known.setdefault((child.name, child.version), child), names
            )
            if id(child) not in heights:
                heights[id(child)] = height(child, longer)
            if len(line) + heights[id(child)] > CHILD_DEPTH_LIMIT:
                raise DefinitionError(
                    f"saga {saga.name!r}: children nest deeper than {CHILD_DEPTH_LIMIT}: {names}; "
                    "let one of them do the work of the next itself"
                )
            below = max(below, heights[id(child)])
        return below + 1

    height(saga, (saga,))


def _check_relative(
    saga: Saga[Any, Any], child: Saga[Any, Any], known: Saga[Any, Any], names: str
) -> None:
    if known is saga:
        raise DefinitionError(
            f"saga {saga.name!r} would be its own child: {names}; to do a thing again use loop(), "
            "to change it count the version up"
        )
    if known is not child:
        raise DefinitionError(
            f"saga {saga.name!r}: two different sagas are called {child.name!r} version "
            f"{child.version} ({names}); build it once and use it twice, or name them apart"
        )


def _missing_undos(saga: Saga[Any, Any]) -> Iterator[str]:
    for part in parts_before_pivot(saga.tree):
        for node in walk(part):
            if (
                isinstance(node, Step)
                and node.undo_of_completed is None
                and node.no_undo_reason is None
            ):
                yield (
                    f"saga {saga.name!r}: step {node.name!r} comes before the pivot and says "
                    f"nothing of its undo; declare @{node.name}.compensation, or "
                    f'{node.name}.without_undo("why")'
                )


def _doubtful_scopes(saga: Saga[Any, Any]) -> Iterator[str]:
    warned: set[str] = set()
    for scope in walk(saga.tree):
        if not _is_scope(scope):
            continue
        for node in walk(scope):
            if isinstance(node, Step) and parks_in_doubt(node) and node.name not in warned:
                warned.add(node.name)
                yield (
                    f"saga {saga.name!r}: when nobody knows whether {node.name!r} happened, the "
                    "scope round it cannot be undone, and a saga that goes forward is stuck; "
                    f"declare @{node.name}.probe or @{node.name}.compensation_on_doubt"
                )


def _is_scope(node: Primitive[Any, Any]) -> bool:
    if isinstance(node, Retry | Timeout):
        return is_composite(node.children[0])
    return isinstance(node, Scope | Fallback)


def parks_in_doubt(step: Step[Any, Any]) -> bool:
    """Whether a person is needed when this step is in doubt and is to be undone."""
    return (
        step.undo_completed is not None
        and step.undo_attempted is None
        and step.asks is None
        and step.transaction is None
    )

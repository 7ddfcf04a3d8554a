"""What is refused when a saga is built: the place, what is wrong there, and the mend."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from orchestrator.domain.branching import Fallback
from orchestrator.domain.definition import Primitive, Sequential
from orchestrator.domain.guards import Cache
from orchestrator.domain.saga import Child, Saga, walk
from orchestrator.domain.steps import Step
from orchestrator.domain.wrappers import Pivot, Retry, Scope, Timeout, below_adapters, is_composite
from orchestrator.errors import DefinitionError, DefinitionWarning

DEPTH_LIMIT = 50
"""Levels of nesting; each is a segment of every path and every key below it."""

SIZE_LIMIT = 5_000
"""Nodes of one definition. Data that is a list belongs into each()."""

CHILD_DEPTH_LIMIT = 10


def check(saga: Saga[Any, Any]) -> None:
    """Raise DefinitionError for what can never be right; warn of what may park an instance."""
    _check_size(saga)
    _check_names(saga)
    _check_pivots(saga)
    _check_caches(saga)
    _check_children(saga)
    for problem in (*_missing_undos(saga), *_doubtful_scopes(saga)):
        if saga.strict:
            raise DefinitionError(problem)
        warnings.warn(problem, DefinitionWarning, stacklevel=5)


def _check_size(saga: Saga[Any, Any]) -> None:
    def depth(node: Primitive[Any, Any], level: int) -> int:
        if level > DEPTH_LIMIT:
            raise DefinitionError(
                f"saga {saga.name!r} is nested deeper than {DEPTH_LIMIT} levels at {node!r}; "
                "make a child saga of the inner part"
            )
        return 1 + sum(depth(child, level + 1) for child in node.children)

    if (size := depth(saga.tree, 1)) > SIZE_LIMIT:
        raise DefinitionError(
            f"saga {saga.name!r} has {size:,} parts, more than {SIZE_LIMIT:,}; "
            "use each() over a list, or child sagas"
        )


def _check_names(saga: Saga[Any, Any]) -> None:
    seen: set[str] = set()
    for node in walk(saga.tree):
        if not isinstance(node, Step):
            continue
        if node.name in seen:
            raise DefinitionError(
                f"saga {saga.name!r}: step {node.name!r} stands in two places; "
                f'give the second use a name of its own: {node.name}.named("...")'
            )
        seen.add(node.name)


def _check_pivots(saga: Saga[Any, Any]) -> None:
    spine = saga.tree.children if isinstance(saga.tree, Sequential) else (saga.tree,)
    passed: Primitive[Any, Any] | None = None
    for part in spine:
        for node in walk(part):
            if isinstance(node, Pivot):
                _check_pivot(saga, part, node, passed)
        if passed is not None:
            _check_forward_only(saga, part, passed)
        if any(isinstance(node, Pivot) for node in walk(part)):
            passed = part


def _check_pivot(
    saga: Saga[Any, Any],
    part: Primitive[Any, Any],
    pivot: Pivot[Any, Any],
    passed: Primitive[Any, Any] | None,
) -> None:
    node = part
    while node is not pivot and node.transparent:
        node = node.children[0]
    if node is not pivot:
        raise DefinitionError(
            f"saga {saga.name!r}: {pivot!r} stands inside of {part!r}; a pivot stands on the spine "
            "only, a part of the outermost sequence: `... >> pay.pivot() >> ...`"
        )
    if passed is not None:
        raise DefinitionError(
            f"saga {saga.name!r}: {pivot!r} follows {passed!r}; after one pivot there is no way "
            "back already, so take the second .pivot() away"
        )
    target = below_adapters(pivot)
    if not isinstance(target, Step | Child):
        raise DefinitionError(
            f"saga {saga.name!r}: {target!r} cannot be a pivot; a pivot is one step or child saga, "
            "because something between done and not done cannot be a point of no return"
        )


def _check_forward_only(
    saga: Saga[Any, Any], part: Primitive[Any, Any], pivot: Primitive[Any, Any]
) -> None:
    for node in walk(part):
        undone = isinstance(node, Step) and node.undo_of_completed is not None
        if undone:
            raise DefinitionError(
                f"saga {saga.name!r}: {node!r} has a compensation, but it comes after {pivot!r}, "
                "and after a pivot nothing is compensated; move it before the pivot, or take its "
                "compensation away"
            )


def _check_caches(saga: Saga[Any, Any]) -> None:
    for node in walk(saga.tree):
        if not isinstance(node, Cache):
            continue
        step = below_adapters(node)
        if not isinstance(step, Step):
            raise DefinitionError(
                f"saga {saga.name!r}: {node!r} is not round a step; put the cache round the one "
                "step whose output is to be remembered"
            )
        if step.undo_of_completed is not None or step.asks is not None:
            raise DefinitionError(
                f"saga {saga.name!r}: {step.name!r} is undone when the saga turns round, so its "
                "output cannot come from a cache: nothing would have happened that could be "
                "undone; cache only steps that read"
            )


def _check_children(saga: Saga[Any, Any]) -> None:
    def descend(parent: Saga[Any, Any], line: tuple[Saga[Any, Any], ...]) -> None:
        for node in walk(parent.tree):
            if not isinstance(node, Child):
                continue
            names = " > ".join(s.name for s in (*line, node.saga))
            if any((s.name, s.version) == (node.saga.name, node.saga.version) for s in line):
                raise DefinitionError(f"saga {saga.name!r} would be its own child: {names}")
            if len(line) >= CHILD_DEPTH_LIMIT:
                raise DefinitionError(f"children nest deeper than {CHILD_DEPTH_LIMIT}: {names}")
            descend(node.saga, (*line, node.saga))

    descend(saga, (saga,))
    pivots = {below_adapters(node) for node in walk(saga.tree) if isinstance(node, Pivot)}
    for node in walk(saga.tree):
        if isinstance(node, Child) and has_pivot(node.saga) and node not in pivots:
            raise DefinitionError(
                f"saga {saga.name!r}: {node.saga.name!r} has a pivot, so once it is done it "
                f"cannot be undone; say so: {node!r}.pivot()"
            )


def has_pivot(saga: Saga[Any, Any]) -> bool:
    """Whether an instance of *saga* can come to a point of no return."""
    return any(isinstance(node, Pivot) for node in walk(saga.tree))


def _missing_undos(saga: Saga[Any, Any]) -> Iterator[str]:
    spine = saga.tree.children if isinstance(saga.tree, Sequential) else (saga.tree,)
    places = [i for i, part in enumerate(spine) if isinstance_below(part, Pivot)]
    for part in spine[: places[0]] if places else ():
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


def isinstance_below(part: Primitive[Any, Any], kind: type[Primitive[Any, Any]]) -> bool:
    return any(isinstance(node, kind) for node in walk(part))


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

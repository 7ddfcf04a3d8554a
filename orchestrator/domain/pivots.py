"""Where the point of no return may stand, and what may come after it."""

from __future__ import annotations

from typing import Any

from orchestrator.domain.bounds import shown
from orchestrator.domain.definition import Primitive, Sequential
from orchestrator.domain.saga import Child, Saga, walk
from orchestrator.domain.steps import Step
from orchestrator.domain.wrappers import Pivot, Retry, Timeout, below_adapters
from orchestrator.errors import DefinitionError


def check_pivots(tree: Primitive[Any, Any], place: str) -> None:
    """Refuse a pivot off the spine, a second one, and what would be undone after it."""
    passed: Primitive[Any, Any] | None = None
    for part in spine(tree):
        pivots = [node for node in walk(part) if isinstance(node, Pivot)]
        for index, pivot in enumerate(pivots):
            _check_pivot(place, part, pivot, pivots[0] if index else passed)
        if passed is not None:
            _check_forward_only(place, part, passed)
        if pivots:
            passed = part
    _check_children(tree, place)


def has_pivot(saga: Saga[Any, Any]) -> bool:
    """Whether an instance of *saga* can come to a point of no return."""
    return any(isinstance(node, Pivot) for node in walk(saga.tree))


def parts_before_pivot(tree: Primitive[Any, Any]) -> tuple[Primitive[Any, Any], ...]:
    """The parts of the spine that are undone when the pivot fails; none without a pivot."""
    parts = spine(tree)
    for index, part in enumerate(parts):
        if any(isinstance(node, Pivot) for node in walk(part)):
            return parts[:index]
    return ()


def spine(tree: Primitive[Any, Any]) -> tuple[Primitive[Any, Any], ...]:
    """The parts of the outermost sequence."""
    return tree.children if isinstance(tree, Sequential) else (tree,)


def _check_pivot(
    place: str,
    part: Primitive[Any, Any],
    pivot: Pivot[Any, Any],
    passed: Primitive[Any, Any] | None,
) -> None:
    if passed is not None:
        raise DefinitionError(
            f"{place}: {shown(pivot)} follows {shown(passed)}; after one pivot there is no way "
            "back already, so take the second .pivot() away"
        )
    round_it = _wrappers_round(part, pivot)
    if round_it is None:
        raise DefinitionError(
            f"{place}: {shown(pivot)} stands inside of {shown(part)}; a pivot stands on the spine "
            "only, a part of the outermost sequence: `... >> pay.pivot() >> ...`"
        )
    target = below_adapters(pivot)
    if not isinstance(target, Step | Child):
        raise DefinitionError(
            f"{place}: {shown(target)} cannot be a pivot; a pivot is one step or child saga, "
            "because something between done and not done cannot be a point of no return; "
            "say .pivot() right after that step"
        )
    if isinstance(target, Child) and any(isinstance(node, Retry | Timeout) for node in round_it):
        raise DefinitionError(
            f"{place}: {shown(part)} is a scope round a pivot, and would undo what cannot be "
            "undone any more; say .pivot() last"
        )


def _wrappers_round(
    part: Primitive[Any, Any], pivot: Pivot[Any, Any]
) -> list[Primitive[Any, Any]] | None:
    """What adapts *pivot* on the spine; None when it stands deeper inside of *part*."""
    found: list[Primitive[Any, Any]] = []
    node = part
    while node is not pivot:
        if not node.transparent:
            return None
        found.append(node)
        node = node.children[0]
    return found


def _check_forward_only(place: str, part: Primitive[Any, Any], pivot: Primitive[Any, Any]) -> None:
    for node in walk(part):
        if isinstance(node, Step) and node.undo_of_completed is not None:
            raise DefinitionError(
                f"{place}: {node!r} has a compensation, but it comes after {shown(pivot)}, "
                "and after a pivot nothing is compensated; move it before the pivot, or take its "
                "compensation away"
            )


def _check_children(tree: Primitive[Any, Any], place: str) -> None:
    pivots = {below_adapters(node) for node in walk(tree) if isinstance(node, Pivot)}
    for node in walk(tree):
        if isinstance(node, Child) and has_pivot(node.saga) and node not in pivots:
            raise DefinitionError(
                f"{place}: {node.saga.name!r} has a pivot, so once it is done it cannot be undone; "
                f"say so, on the spine: {node!r}.pivot()"
            )

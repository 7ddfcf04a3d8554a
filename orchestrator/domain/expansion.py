"""A flow as it is interpreted: what is short for something else is spelled out, once."""

from __future__ import annotations

from typing import Any

from orchestrator.domain.definition import Primitive, Pure, Sequential
from orchestrator.domain.guards import Cache
from orchestrator.domain.steps import Step
from orchestrator.domain.wrappers import (
    Keep,
    Pivot,
    Retry,
    Timeout,
    Using,
    below_adapters,
    is_composite,
)


def expand(node: Primitive[Any, Any]) -> Primitive[Any, Any]:
    """*node* with a step's own defaults as the wrappers they stand for: one set of rules.

    A wrapper round a step that is only mapped goes to the step, because a plain function needs
    no retry and no time-out, and one step is no scope.
    """
    return _spelled(_lowered(node))


def _spelled(
    node: Primitive[Any, Any], *, own_retries: bool = True, own_limit: bool = True
) -> Primitive[Any, Any]:
    match node:
        case Step():
            wrapped: Primitive[Any, Any] = node
            if own_limit and node.limit is not None:
                wrapped = Timeout(wrapped, node.limit)
            return Retry(wrapped, node.retries) if own_retries and node.retries else wrapped
        case Timeout(inner=inner) if (step := _adapted_step(inner)) is not None:
            # It bounds each attempt, so it stands inside of the step's own retries.
            inside = _spelled(inner, own_retries=False, own_limit=False)
            bounded = node.with_children((inside,))
            return Retry(bounded, step.retries) if own_retries and step.retries else bounded
        case _ if node.transparent and not is_composite(node):
            # Whatever adapts one step leaves to the step what a wrapper further out does not say.
            retries = own_retries and not isinstance(node, Retry)
            inside = _spelled(node.children[0], own_retries=retries, own_limit=own_limit)
            return node.with_children((inside,))
        case _:
            return node.with_children(tuple(map(_spelled, node.children)))


def _adapted_step(node: Primitive[Any, Any]) -> Step[Any, Any] | None:
    """The one step below adapters; None below a retry or a time-out, which bound it themselves."""
    while node.transparent and not isinstance(node, Retry | Timeout):
        node = node.children[0]
    return node if isinstance(node, Step) else None


def _lowered(node: Primitive[Any, Any]) -> Primitive[Any, Any]:
    children = tuple(map(_lowered, node.children))
    if any(new is not old for new, old in zip(children, node.children, strict=True)):
        node = node.with_children(children)
    if not node.transparent or isinstance(node, Keep | Pivot):
        return node
    chain = node.children[0]
    place = _mapped_step(chain)
    if place is None:
        return node
    parts = list(chain.children)
    if isinstance(node, Using):
        place = 0
    elif isinstance(node, Cache) and place:
        return node  # its key is made of what comes in before the step
    parts[place] = node.with_children((parts[place],))
    return Sequential(tuple(parts))


def _mapped_step(node: Primitive[Any, Any]) -> int | None:
    """Where the one step stands in a chain of it and plain functions; None in any other part."""
    if type(node) is not Sequential:
        return None
    steps = [i for i, part in enumerate(node.steps) if not isinstance(part, Pure)]
    alone = len(steps) == 1 and isinstance(below_adapters(node.steps[steps[0]]), Step)
    return steps[0] if alone else None

"""`Saga`: a flow with a name and a version, checked and frozen when it is built."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from orchestrator.domain.definition import (
    A,
    B,
    Parallel,
    Primitive,
    Pure,
    Retry,
    Sequential,
    Timeout,
    as_primitive,
    checked_name,
)
from orchestrator.domain.steps import Step
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, eq=False, repr=False)
class Saga(Generic[A, B]):
    """A named, versioned flow, checked when it is built.

    Raises DefinitionError for a wrong name, a version below 1, neighbours whose types do not
    fit, or one step in two places without `.named()`.
    """

    name: str
    version: int
    body: Primitive[A, B]
    tree: Primitive[Any, Any] = field(init=False)
    steps: dict[str, Step[Any, Any]] = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        checked_name(self.name, "saga")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise DefinitionError(f"saga {self.name!r}: version is {self.version!r}; count from 1")
        as_primitive(self.body, f"Saga({self.name!r})")
        tree = _expand(self.body, own_retries=True, own_limit=True)
        steps: dict[str, Step[Any, Any]] = {}
        for node in walk(tree):
            if not isinstance(node, Step):
                continue
            if node.name in steps:
                raise DefinitionError(
                    f"saga {self.name!r}: step {node.name!r} stands in two places; "
                    f'give the second use a name of its own: {node.name}.named("...")'
                )
            steps[node.name] = node
        for step in steps.values():
            object.__setattr__(step, "sealed", True)
        object.__setattr__(self, "tree", tree)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "fingerprint", _fingerprint(tree))

    @property
    def input_type(self) -> Any:
        """The annotation of the saga's input."""
        return self.tree.input_type

    @property
    def output_type(self) -> Any:
        """The annotation of the saga's result."""
        return self.tree.output_type

    def __repr__(self) -> str:
        return f"Saga({self.name!r}, version={self.version}, body={self.body!r})"


def walk(node: Primitive[Any, Any]) -> Iterator[Primitive[Any, Any]]:
    """All nodes of a tree, parents first, in the order in which they are written."""
    yield node
    for child in node.children:
        yield from walk(child)


def is_composite(node: Primitive[Any, Any]) -> bool:
    """Whether a wrapper round *node* is a scope: it can complete more than one thing."""
    while isinstance(node, Retry | Timeout):
        node = node.inner
    return not isinstance(node, Step | Pure)


def _expand(node: Primitive[Any, Any], *, own_retries: bool, own_limit: bool) -> Any:
    """Spell a step's own defaults as the wrappers they stand for: one tree, one set of rules."""
    match node:
        case Step():
            wrapped: Primitive[Any, Any] = node
            if own_limit and node.limit is not None:
                wrapped = Timeout(wrapped, node.limit)
            return Retry(wrapped, node.retries) if own_retries and node.retries else wrapped
        case Retry():
            inner = _expand(node.inner, own_retries=is_composite(node.inner), own_limit=own_limit)
            return replace(node, inner=inner)
        case Timeout():
            # A time-out with a retry below it bounds them all; the step's own still bounds each.
            direct = isinstance(node.inner, Step)
            inner = _expand(node.inner, own_retries=own_retries, own_limit=not direct)
            if direct and isinstance(inner, Retry):
                return replace(inner, inner=replace(node, inner=inner.inner))
            return replace(node, inner=inner)
        case Sequential():
            return Sequential(_expand_all(node.steps))
        case Parallel():
            return Parallel(_expand_all(node.branches))
        case _:
            return node


def _expand_all(nodes: tuple[Primitive[Any, Any], ...]) -> tuple[Primitive[Any, Any], ...]:
    return tuple(_expand(node, own_retries=True, own_limit=True) for node in nodes)


def _fingerprint(tree: Primitive[Any, Any]) -> str:
    """The shape that a history depends on: kinds of nodes, their order and their names."""

    def shape(node: Primitive[Any, Any]) -> str:
        name = node.name if isinstance(node, Step | Pure) else ""
        return f"{type(node).__name__}:{name}({','.join(map(shape, node.children))})"

    return hashlib.sha256(shape(tree).encode()).hexdigest()[:16]

"""`Saga`: a flow with a name and a version, checked and frozen when it is built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic

from orchestrator.domain.definition import (
    A,
    B,
    In,
    Out,
    Primitive,
    Seconds,
    Sequential,
    as_primitive,
    checked_name,
)
from orchestrator.domain.policies import seconds
from orchestrator.domain.signatures import counts_parameters, name_of
from orchestrator.domain.steps import Step
from orchestrator.domain.wrappers import Retry, Timeout, is_composite
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, eq=False, repr=False)
class Saga(Generic[A, B]):
    """A named, versioned flow, checked when it is built.

    `deadline` bounds the whole instance, from its request on: when it passes, what runs is cut
    off and everything is undone. `strict=True` makes errors of what is otherwise a
    DefinitionWarning. Raises DefinitionError for a wrong name, a version below 1, neighbours
    whose types do not fit, one step in two places without `.named()`, a pivot in the wrong place.
    """

    name: str
    version: int
    body: Primitive[A, B]
    deadline: Seconds | None = None
    strict: bool = False
    tree: Primitive[Any, Any] = field(init=False)
    steps: dict[str, Step[Any, Any]] = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        from orchestrator.domain.checks import check

        checked_name(self.name, "saga")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise DefinitionError(f"saga {self.name!r}: version is {self.version!r}; count from 1")
        if self.deadline is not None and seconds(self.deadline) <= timedelta(0):
            raise DefinitionError(
                f"saga {self.name!r}: a deadline of {self.deadline} lets nothing run"
            )
        as_primitive(self.body, f"Saga({self.name!r})")
        tree = expand(self.body)
        steps = {node.name: node for node in walk(tree) if isinstance(node, Step)}
        object.__setattr__(self, "tree", tree)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "fingerprint", fingerprint(tree))
        check(self)
        for step in steps.values():
            object.__setattr__(step, "sealed", True)

    def child(self, key: Callable[[A], str] | None = None) -> Primitive[A, B]:
        """This saga as a part of another one: an instance of its own, which its parent undoes.

        *key* gives the child's business key; one that belongs to another instance fails the part.
        """
        if key is not None:
            counts_parameters(key, name_of(key, "key"), 1)
        return Child(self, key)

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


@dataclass(frozen=True, eq=False, repr=False)
class Child(Primitive[In, Out]):
    """Another saga as a part of this one. Made by `saga.child()`."""

    saga: Saga[Any, Any]
    key: Callable[[Any], str] | None = None

    @property
    def label(self) -> str:
        return f"saga {self.saga.name}"

    @property
    def identity(self) -> str:
        return f"{self.saga.name}/{self.saga.version}"

    @property
    def input_type(self) -> Any:
        return self.saga.input_type

    @property
    def output_type(self) -> Any:
        return self.saga.output_type

    def __repr__(self) -> str:
        return f"{self.saga.name}.child()"


def walk(node: Primitive[Any, Any]) -> Iterator[Primitive[Any, Any]]:
    """All nodes of a tree, parents first, in the order in which they are written."""
    yield node
    for child in node.children:
        yield from walk(child)


def expand(
    node: Primitive[Any, Any], *, own_retries: bool = True, own_limit: bool = True
) -> Primitive[Any, Any]:
    """Spell a step's own defaults as the wrappers they stand for: one tree, one set of rules."""
    match node:
        case Step():
            wrapped: Primitive[Any, Any] = node
            if own_limit and node.limit is not None:
                wrapped = Timeout(wrapped, node.limit)
            return Retry(wrapped, node.retries) if own_retries and node.retries else wrapped
        case Timeout(inner=inner):
            # A time-out with a retry below it bounds them all; the step's own still bounds each.
            direct = isinstance(inner, Step)
            inside = expand(inner, own_retries=own_retries, own_limit=not direct)
            if direct and isinstance(inside, Retry):
                return inside.with_children((node.with_children((inside.inner,)),))
            return node.with_children((inside,))
        case _ if node.transparent:
            # Whatever adapts one step leaves to the step what a wrapper further out does not say.
            retries = own_retries and not isinstance(node, Retry)
            inner = node.children[0]
            below = is_composite(inner)
            return node.with_children(
                (expand(inner, own_retries=below or retries, own_limit=below or own_limit),)
            )
        case _:
            return node.with_children(tuple(map(expand, node.children)))


def shape(node: Primitive[Any, Any]) -> str:
    """What a history depends on: the kinds of nodes, their order and their names."""
    inside = ",".join(map(shape, node.children))
    return f"{type(node).__name__}:{node.identity}({inside})"


def fingerprint(tree: Primitive[Any, Any]) -> str:
    """A hash for each part of the spine, so that what follows may be told from what was reached."""
    spine = tree.children if isinstance(tree, Sequential) else (tree,)
    return ".".join(hashlib.sha256(shape(part).encode()).hexdigest()[:12] for part in spine)


def still_fits(begun: str, present: str, reached: int) -> bool:
    """Whether an instance that has reached part *reached* of its spine may go on with *present*.

    It may when both shapes agree on all that it reached: parts that come after may differ.
    """
    ours, theirs = begun.split("."), present.split(".")
    if len(theirs) < reached + 1 or len(ours) < reached + 1:
        return begun == present
    # A single part has no index of its own in the paths, a sequence has.
    if (len(ours) == 1) != (len(theirs) == 1):
        return False
    return ours[: reached + 1] == theirs[: reached + 1]

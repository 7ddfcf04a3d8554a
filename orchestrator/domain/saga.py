"""`Saga`: a flow with a name and a version, checked and frozen when it is built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic

from orchestrator.domain.bounds import checked_count, checked_duration, checked_name, spell_seconds
from orchestrator.domain.definition import (
    A,
    B,
    In,
    Out,
    Primitive,
    Seconds,
    Sequential,
    as_primitive,
)
from orchestrator.domain.expansion import expand
from orchestrator.domain.signatures import check_plain
from orchestrator.domain.steps import Step
from orchestrator.domain.wrappers import spell_argument

__all__ = ["Child", "Saga", "expand", "fingerprint", "shape", "still_fits", "walk"]


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
        from orchestrator.domain.checks import check, check_depth

        place = f"saga {checked_name(self.name, 'saga')!r}"
        checked_count(self.version, f"{place}: version (count from 1)")
        if self.deadline is not None:
            checked_duration(self.deadline, f"{place}: deadline")
        check_depth(as_primitive(self.body, f"Saga({self.name!r})"), place)
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
            check_plain(key, f"{self.name}.child(): key", self.input_type, str)
        return Child(self, key)

    @cached_property
    def input_type(self) -> Any:
        """The annotation of the saga's input."""
        return self.tree.input_type

    @cached_property
    def output_type(self) -> Any:
        """The annotation of the saga's result."""
        return self.tree.output_type

    def __repr__(self) -> str:
        deadline = "" if self.deadline is None else f", deadline={spell_seconds(self.deadline)}"
        return f"Saga({self.name!r}, version={self.version}, body={self.body!r}{deadline})"


@dataclass(frozen=True, eq=False, repr=False)
class Child(Primitive[In, Out]):
    """Another saga as a part of this one. Made by `saga.child()`."""

    saga: Saga[Any, Any]
    key: Callable[[Any], str] | None = None

    marked = True

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
        key = "" if self.key is None else f"key={spell_argument(self.key)}"
        return f"{self.saga.name}.child({key})"


def walk(node: Primitive[Any, Any]) -> Iterator[Primitive[Any, Any]]:
    """All nodes of a tree, parents first, in the order in which they are written."""
    yield node
    for child in node.children:
        yield from walk(child)


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

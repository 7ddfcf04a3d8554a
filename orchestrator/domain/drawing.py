"""A flow as a drawing: its places with a mark each, in an outline that stays short.

What has a size of its own (the items of a list, the iterations of a loop, the requests of a
flow) is counted; of these only what failed, is in doubt or goes on is drawn, up to a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from orchestrator.domain.definition import Primitive
from orchestrator.domain.events import Status
from orchestrator.domain.marks import (
    DONE,
    DOUBT,
    FAILED,
    RUNNING,
    STOPPED,
    TROUBLE,
    UNDONE,
    WAITING,
    current,
    item_mark,
    leaves,
    mark_of,
    overall,
    standing,
    tally,
    words_of,
)
from orchestrator.domain.node_state import NodeState, Settled
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState

__all__ = [
    "DONE", "DOUBT", "FAILED", "MOST", "RUNNING", "STOPPED", "UNDONE", "WAITING",
    "Drawn", "Line", "draw", "outline",
]  # fmt: skip

MOST = 10
"""Of the items, iterations or requests of one part, so many are drawn."""

Shape = Literal["leaf", "chain", "fork", "box", "turns", "items"]


@dataclass(frozen=True, slots=True)
class Line:
    """One place of a flow: how deep it stands, what it is, how far it has come."""

    depth: int
    label: str
    mark: str
    path: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A place with what is drawn below it: one after the other, side by side, or inside of it."""

    line: Line
    shape: Shape = "leaf"
    parts: tuple[Drawn, ...] = ()
    names: tuple[str, ...] = ()


def outline(saga: Saga[Any, Any], state: SagaState | None = None) -> list[Line]:
    """The tree of *saga*, top down; with *state*, each place where something happens is marked.

    Of a scope that ran again, the attempt that began last is shown.
    """
    return list(_lines(draw(saga, state)))


def draw(saga: Saga[Any, Any], state: SagaState | None = None) -> Drawn:
    """What there is to be drawn of *saga*, or of the instance *state*."""
    root = state.root if state is not None else NodeState()
    return _Pencil(standing(state)).draw(saga.tree, root, saga.name, 0, MOST)


def _lines(drawn: Drawn) -> Iterator[Line]:
    yield drawn.line
    for part in drawn.parts:
        yield from _lines(part)


@dataclass(frozen=True, slots=True)
class _Pencil:
    """Draws the parts of one instance; *most* bounds what is listed of each."""

    now: Status

    def draw(
        self, node: Primitive[Any, Any], known: NodeState, path: str, depth: int, most: int
    ) -> Drawn:
        mark = mark_of(known, self.now) if node.marked else ""
        if not mark and known.settled is Settled.FAILED:
            mark = FAILED  # what it computes to choose or to bind
        parts, shape, words = self._below(node, known, path, depth, most)
        words = [*words, *words_of(known, self.now), *filter(None, [node.told(known)])]
        label = f"{node.label}: {', '.join(words)}" if words else node.label
        line = Line(depth, label, mark, path, node.notes)
        return Drawn(line, shape, tuple(parts), node.names)

    def _below(
        self, node: Primitive[Any, Any], known: NodeState, path: str, depth: int, most: int
    ) -> tuple[list[Drawn], Shape, list[str]]:
        """What is drawn below a place, how, and what is said of what is not."""
        if known.fan_out is not None:
            parts, words = self._items(node, known, path, depth + 1, most)
            return parts, "items", [words]
        if any(call.request for call in known.calls):
            return self._requests(known, path, depth + 1, most), "turns", []
        begun = current(known)
        if len(begun) > 1 and len(node.children) == 1 and any("#" in s for s in begun):
            parts = self._turns(node.children[0], begun, path, depth + 1, most)
            return parts, "turns" if len(parts) > 1 else "box", []
        parts = []
        newest = {segment.partition("@")[0]: segment for segment in known.children}
        for index, child in enumerate(node.children):
            segment = newest.get(str(index), str(index))
            below = known.child(segment)
            parts.append(self.draw(child, below, f"{path}/{segment}", depth + 1, most))
        return parts, _shape(node), []

    def _items(
        self, node: Primitive[Any, Any], known: NodeState, path: str, depth: int, most: int
    ) -> tuple[list[Drawn], str]:
        """The items that failed or are in doubt; if there are none, one that shows what is done."""
        assert known.fan_out is not None  # noqa: S101 - asked by the only caller
        inner, count = node.children[0], len(known.fan_out.items)
        marks = [item_mark(known, item, self.now) for item in range(count)]
        listed, left = _listed(marks, most)
        if not listed and count:
            running = [item for item, mark in enumerate(marks) if mark == RUNNING]
            listed = running[:1] or [0]
        share = max(most // max(len(listed), 1), 1)
        parts = [
            self._numbered(
                f"item {item}", marks[item], inner, known.child(str(item)), f"{path}/{item}",
                depth, share,
            )
            for item in listed
        ]  # fmt: skip
        if not parts:
            parts = [self.draw(inner, NodeState(), f"{path}/0", depth, most)]
        return [*parts, *_more(left, "item", path, depth)], tally(known, marks)

    def _turns(
        self,
        inner: Primitive[Any, Any],
        begun: dict[str, NodeState],
        path: str,
        depth: int,
        most: int,
    ) -> list[Drawn]:
        """The iteration of a loop that began last, and earlier ones that are in trouble."""
        segments = list(begun)
        marks = [overall(known, self.now) for known in begun.values()]
        listed, left = _listed(marks[:-1], most)
        if not listed:
            return [self.draw(inner, begun[segments[-1]], f"{path}/{segments[-1]}", depth, most)]
        listed.append(len(segments) - 1)
        share = max(most // len(listed), 1)
        parts = [
            self._numbered(
                f"iteration {segments[turn].partition('#')[2] or 1}", marks[turn], inner,
                begun[segments[turn]], f"{path}/{segments[turn]}", depth, share,
            )
            for turn in listed
        ]  # fmt: skip
        return [*_more(left, "iteration", path, depth), *parts]

    def _numbered(
        self,
        title: str,
        mark: str,
        inner: Primitive[Any, Any],
        known: NodeState,
        path: str,
        depth: int,
        most: int,
    ) -> Drawn:
        """One of many: on a line of its own, with what is below it."""
        single = self.draw(inner, known, path, depth, most)
        if not single.parts:
            line = replace(single.line, label=f"{title}: {single.line.label}")
            return replace(single, line=line)
        below = self.draw(inner, known, path, depth + 1, most)
        return Drawn(Line(depth, title, mark, path), "box", (below,))

    def _requests(self, known: NodeState, path: str, depth: int, most: int) -> list[Drawn]:
        """What the code of a flow asked for: what is in trouble, and what it asked for last."""
        marks = [self._answered(known, index) for index in range(len(known.calls))]
        listed, _ = _listed(marks, most)
        room = max(most - len(listed), 1)
        shown = sorted({*listed, *list(range(len(marks)))[-room:]})
        parts = [
            self._request(
                known.calls[n].request, marks[n], known.child(str(n)), f"{path}/{n}", depth
            )
            for n in shown
        ]
        left = len(marks) - len(shown)
        if not left:
            return parts
        earlier = f"{left:,} earlier request{'s' if left > 1 else ''}"
        return [Drawn(Line(depth, earlier, "", path)), *parts]

    def _answered(self, known: NodeState, index: int) -> str:
        below = known.child(str(index))
        mark = overall(below, self.now)
        if below.settled is Settled.SUCCEEDED or mark not in (DONE, WAITING, STOPPED):
            return mark
        if index + 1 < len(known.calls) or known.settled is not None:
            return DONE if mark == WAITING else mark
        return mark_of(known, self.now)

    def _request(self, request: str, mark: str, known: NodeState, path: str, depth: int) -> Drawn:
        """A request by its record: what it was made of is in the code, and not in the tree."""
        steps = [] if known.step else list(leaves(known, path))
        marks = [mark_of(each, self.now) for _, each in steps]
        listed, _ = _listed(marks, MOST)
        if len(steps) <= MOST:
            listed = list(range(len(steps)))
        parts = tuple(
            Drawn(Line(depth + 1, _worded(steps[n][1], self.now), marks[n], steps[n][0]))
            for n in listed
        )
        words = words_of(known, self.now)
        label = f"{spelled(request)}: {', '.join(words)}" if words else spelled(request)
        left = _more(len(steps) - len(listed), "step", path, depth + 1) if listed else []
        return Drawn(Line(depth, label, mark, path), "items" if parts else "leaf", (*parts, *left))


def spelled(request: str) -> str:
    """A request of a flow, `Retry(Step:pay)`, as people read it: `retry (step pay)`."""
    kinds = re.sub(r"\b[A-Z]\w*(?=[:(])|^[A-Z]\w*$", lambda found: found[0].lower(), request)
    return re.sub(r"(?<=\w)\(", " (", kinds.replace(":", " ").replace(",", ", "))


def _worded(known: NodeState, now: Status) -> str:
    words = words_of(known, now)
    return f"{known.step}: {', '.join(words)}" if words else known.step


def _listed(marks: Sequence[str], most: int) -> tuple[list[int], int]:
    """Which of many are in trouble, up to *most*, and how many more there are."""
    found = [n for kind in TROUBLE for n, mark in enumerate(marks) if mark == kind]
    return sorted(found[:most]), max(len(found) - most, 0)


def _more(left: int, what: str, path: str, depth: int) -> list[Drawn]:
    """The line that stands for all that is in trouble and not drawn."""
    if not left:
        return []
    text = f"and {left:,} more {what}{'s' if left > 1 else ''} failed or in doubt"
    return [Drawn(Line(depth, text, "", path))]


def _shape(node: Primitive[Any, Any]) -> Shape:
    match len(node.children):
        case 0:
            return "leaf"
        case 1 if not node.in_order:
            return "box"
        case _:
            return "chain" if node.in_order else "fork"

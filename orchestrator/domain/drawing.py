"""Pictures of a flow as data: an outline with a mark for each place, and a Mermaid graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.definition import Parallel, Primitive, Pure, Retry, Sequential, Timeout
from orchestrator.domain.events import Status
from orchestrator.domain.policies import seconds
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import NodeState, SagaState, Settled
from orchestrator.domain.steps import Step

DONE, UNDONE, FAILED, DOUBT, RUNNING, WAITING = "✓", "↩", "✗", "?", "…", "·"
_FORWARD = frozenset({Status.PENDING, Status.RUNNING, Status.WAITING})


@dataclass(frozen=True, slots=True)
class Line:
    """One place of a flow: how deep it stands, what it is, how far it has come."""

    depth: int
    label: str
    mark: str
    path: str


def outline(saga: Saga[Any, Any], state: SagaState | None = None) -> list[Line]:
    """The tree of *saga*, top down; with *state*, each leaf marked.

    Of a scope that ran again, the attempt that began last is shown.
    """
    root = state.root if state is not None else NodeState()
    forward = state is not None and state.status in _FORWARD
    return list(_lines(saga.tree, root, saga.name, 0, forward=forward))


def _lines(
    node: Primitive[Any, Any], known: NodeState, path: str, depth: int, *, forward: bool
) -> Iterator[Line]:
    yield Line(depth, _label(node), _mark(node, known, forward=forward), path)
    for index, child in enumerate(node.children):
        segment = _last_attempt(known) if isinstance(node, Retry) else str(index)
        below = known.child(segment)
        yield from _lines(child, below, f"{path}/{segment}", depth + 1, forward=forward)


def _last_attempt(known: NodeState) -> str:
    attempts = (f"0@{number}" for number in range(known.retries + 1, 1, -1))
    return next((segment for segment in attempts if segment in known.children), "0")


def _label(node: Primitive[Any, Any]) -> str:
    match node:
        case Step(name=name):
            return name
        case Pure(name=name):
            return f"pure {name}"
        case Retry(max_retries=retries):
            return f"retry up to {retries} times"
        case Timeout(after=after):
            return f"within {seconds(after).total_seconds():g} s"
        case Parallel():
            return "side by side"
        case Sequential():
            return "one after the other"
        case _:
            return type(node).__name__


def _mark(node: Primitive[Any, Any], known: NodeState, *, forward: bool) -> str:
    if not isinstance(node, Step | Pure):
        return ""
    if known.undone:
        return UNDONE
    if known.settled is Settled.SUCCEEDED:
        return DONE
    if known.doubtful:
        return DOUBT
    if known.settled is Settled.FAILED:
        return FAILED
    if known.announced > known.attempts:
        return RUNNING
    if known.attempts:  # it failed and was to run again
        return RUNNING if forward else FAILED
    return WAITING


def mermaid(saga: Saga[Any, Any], state: SagaState | None = None) -> str:
    """The flow as a Mermaid flowchart; with *state*, leaves carry their marks."""
    drawing = _Drawing(iter(outline(saga, state)), marked=state is not None)
    entry, ends = drawing.draw(saga.tree)
    return "\n".join(
        [
            "flowchart LR",
            *drawing.lines,
            f"    start(({_quoted(saga.name)})) --> {entry}",
            "    done((end))",
            *(f"    {end} --> done" for end in ends),
        ]
    )


class _Drawing:
    """Nodes and arrows; takes one line of the outline for each node of the tree."""

    def __init__(self, outline: Iterator[Line], *, marked: bool) -> None:
        self._outline = outline
        self._marked = marked
        self._count = 0
        self.lines: list[str] = []

    def draw(self, node: Primitive[Any, Any]) -> tuple[str, list[str]]:
        """Where the part begins, and where it ends."""
        line = next(self._outline)
        match node:
            case Sequential():
                return self._chain(node)
            case Parallel():
                return self._fork(node)
            case Retry() | Timeout():
                entry, ends = self.draw(node.inner)
                self.lines.append(f"    {entry} -. {_quoted(line.label)} .-> {entry}")
                return entry, ends
            case _:
                mark = f"{line.mark} " if self._marked and line.mark else ""
                leaf = self._node("[", f"{mark}{line.label}", "]")
                return leaf, [leaf]

    def _chain(self, node: Sequential[Any, Any]) -> tuple[str, list[str]]:
        entry, ends = self.draw(node.steps[0])
        for child in node.steps[1:]:
            following, after = self.draw(child)
            self.lines.extend(f"    {end} --> {following}" for end in ends)
            ends = after
        return entry, ends

    def _fork(self, node: Parallel[Any, *tuple[Any, ...]]) -> tuple[str, list[str]]:
        fork = self._node("{", "all", "}")
        ends: list[str] = []
        for branch in node.branches:
            entry, after = self.draw(branch)
            self.lines.append(f"    {fork} --> {entry}")
            ends += after
        return fork, ends

    def _node(self, left: str, label: str, right: str) -> str:
        self._count += 1
        name = f"n{self._count}"
        self.lines.append(f"    {name}{left}{_quoted(label)}{right}")
        return name


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "#quot;") + '"'

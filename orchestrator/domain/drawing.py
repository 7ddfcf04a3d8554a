"""Pictures of a flow as data: an outline with a mark for each place, and a Mermaid graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.branching import Each, Fallback, Router
from orchestrator.domain.definition import Parallel, Primitive, Pure, Sequential
from orchestrator.domain.events import Status
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.node_state import NodeState, Settled
from orchestrator.domain.saga import Child, Saga
from orchestrator.domain.state import SagaState
from orchestrator.domain.steps import Step
from orchestrator.domain.waiting import Sleep, Wait

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
    yield Line(depth, _label(node, known), _mark(node, known, forward=forward), path)
    for index, child in enumerate(node.children):
        segment = _shown(node, known, index)
        below = known.child(segment)
        yield from _lines(child, below, f"{path}/{segment}", depth + 1, forward=forward)
    if isinstance(node, FlowNode):
        for index, call in enumerate(known.calls):
            below = known.child(str(index))
            mark = DONE if below.settled is Settled.SUCCEEDED else ""
            yield Line(depth + 1, call.request, mark, f"{path}/{index}")


def _shown(node: Primitive[Any, Any], known: NodeState, index: int) -> str:
    """The segment of the attempt, iteration or item that is shown: the one that began last."""
    if isinstance(node, Each):
        fan_out = known.fan_out
        shown = [*fan_out.failures, *fan_out.live] if fan_out is not None else []
        return str(shown[0]) if shown else "0"
    begun = [s for s in known.children if s.partition("@")[0].partition("#")[0] == str(index)]
    return begun[-1] if begun else str(index)


def _label(node: Primitive[Any, Any], known: NodeState) -> str:
    if known.fan_out is not None:
        done = sum(output is not None for output in known.fan_out.outputs)
        return f"{node.label}: {done} of {len(known.fan_out.items)} done"
    if known.route:
        return f"{node.label}: {known.route}"
    if known.iteration > 1:
        return f"{node.label}: iteration {known.iteration}"
    return node.label


def _mark(node: Primitive[Any, Any], known: NodeState, *, forward: bool) -> str:
    if not isinstance(node, Step | Pure | Sleep | Wait | Child | FlowNode):
        return ""
    if known.undone:
        return UNDONE
    if known.settled is Settled.SUCCEEDED:
        return DONE
    if known.doubtful:
        return DOUBT
    if known.settled is Settled.FAILED:
        return FAILED
    if known.announced > known.attempts or known.waiting or known.calls:
        return RUNNING
    if known.fellow is not None or (isinstance(node, Sleep) and known.due_at is not None):
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
            case Parallel() | Fallback() | Router():
                return self._fork(node, line)
            case _ if node.children:
                entry, ends = self.draw(node.children[0])
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

    def _fork(self, node: Primitive[Any, Any], line: Line) -> tuple[str, list[str]]:
        fork = self._node("{", "all" if isinstance(node, Parallel) else line.label, "}")
        names = node.names if isinstance(node, Router) else ()
        ends: list[str] = []
        for index, branch in enumerate(node.children):
            entry, after = self.draw(branch)
            arrow = f"-- {_quoted(names[index])} -->" if names else "-->"
            self.lines.append(f"    {fork} {arrow} {entry}")
            ends += after
        return fork, ends

    def _node(self, left: str, label: str, right: str) -> str:
        self._count += 1
        name = f"n{self._count}"
        self.lines.append(f"    {name}{left}{_quoted(label)}{right}")
        return name


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "#quot;") + '"'

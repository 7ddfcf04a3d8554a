"""Pictures of a flow as data: an outline with a mark for each place, and a Mermaid graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.definition import (
    Parallel,
    Primitive,
    Pure,
    Retry,
    Sequential,
    Step,
    Timeout,
)
from orchestrator.domain.policies import seconds
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import NodeState, SagaState, Settled

DONE, UNDONE, FAILED, DOUBT, RUNNING, WAITING = "✓", "↩", "✗", "?", "…", "·"


@dataclass(frozen=True, slots=True)
class Line:
    """One place of a flow: how deep it stands, what it is, how far it has come."""

    depth: int
    label: str
    mark: str
    path: str


def outline(saga: Saga[Any, Any], state: SagaState | None = None) -> list[Line]:
    """The tree of *saga*, top down; with *state*, each leaf marked."""
    root = state.root if state is not None else NodeState()
    return list(_lines(saga.tree, root, saga.name, 0))


def _lines(node: Primitive[Any, Any], known: NodeState, path: str, depth: int) -> Iterator[Line]:
    yield Line(depth, _label(node), _mark(node, known), path)
    for index, child in enumerate(node.children):
        segment = str(index)
        if isinstance(node, Retry) and known.retries and f"0@{known.retries + 1}" in known.children:
            segment = f"0@{known.retries + 1}"
        yield from _lines(child, known.child(segment), f"{path}/{segment}", depth + 1)


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


def _mark(node: Primitive[Any, Any], known: NodeState) -> str:
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
    return RUNNING if known.announced > known.attempts else WAITING


def mermaid(saga: Saga[Any, Any], state: SagaState | None = None) -> str:
    """The flow as a Mermaid flowchart; with *state*, steps carry their marks."""
    marks = {line.path: line.mark for line in outline(saga, state)} if state else {}
    drawing = _Drawing(marks)
    drawing.lines.append("flowchart LR")
    entry, ends = drawing.draw(saga.tree, saga.name)
    drawing.lines.append(f"    start(({_quoted(saga.name)})) --> {entry}")
    drawing.lines.append("    done((end))")
    drawing.lines.extend(f"    {end} --> done" for end in ends)
    return "\n".join(drawing.lines)


class _Drawing:
    def __init__(self, marks: dict[str, str]) -> None:
        self.marks = marks
        self.lines: list[str] = []
        self.count = 0

    def draw(self, node: Primitive[Any, Any], path: str) -> tuple[str, list[str]]:
        """Where the part begins, and where it ends."""
        match node:
            case Sequential(steps):
                entry, ends = self.draw(steps[0], f"{path}/0")
                for index, child in enumerate(steps[1:], start=1):
                    following, after = self.draw(child, f"{path}/{index}")
                    self.lines.extend(f"    {end} --> {following}" for end in ends)
                    ends = after
                return entry, ends
            case Parallel(branches):
                fork = self._node("{", "all", "}")
                ends = []
                for index, branch in enumerate(branches):
                    entry, after = self.draw(branch, f"{path}/{index}")
                    self.lines.append(f"    {fork} --> {entry}")
                    ends += after
                return fork, ends
            case Retry() | Timeout():
                entry, ends = self.draw(node.inner, f"{path}/0")
                self.lines.append(f"    {entry} -. {_quoted(_label(node))} .-> {entry}")
                return entry, ends
            case _:
                mark = self.marks.get(path, "")
                label = f"{mark} {_label(node)}" if mark else _label(node)
                name = self._node("[", label, "]")
                return name, [name]

    def _node(self, left: str, label: str, right: str) -> str:
        self.count += 1
        name = f"n{self.count}"
        self.lines.append(f"    {name}{left}{_quoted(label)}{right}")
        return name


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "#quot;") + '"'

"""A flow as a Mermaid flowchart."""

from __future__ import annotations

from typing import Any

from orchestrator.domain.drawing import Drawn, Line, draw
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState

_ESCAPES = str.maketrans(
    {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\\": "#92;"}
)


def mermaid(saga: Saga[Any, Any], state: SagaState | None = None) -> str:
    """The flow as a Mermaid flowchart; with *state*, places carry their marks."""
    graph = _Graph(marked=state is not None)
    entries, ends = graph.draw(draw(saga, state))
    return "\n".join(
        [
            "flowchart LR",
            *graph.lines,
            f"    start(({_quoted(saga.name)}))",
            *(f"    start --> {entry}" for entry in entries),
            '    done(("end"))',
            *(f"    {end} --> done" for end in ends),
        ]
    )


class _Graph:
    """Nodes, arrows and boxes, in the order in which they are written."""

    def __init__(self, *, marked: bool) -> None:
        self._marked = marked
        self._count = 0
        self.lines: list[str] = []

    def draw(self, drawn: Drawn) -> tuple[list[str], list[str]]:
        """Where the part begins, and where it ends."""
        match drawn.shape:
            case "chain":
                return self._chain(drawn.parts)
            case "fork":
                return self._fork(drawn)
            case "leaf":
                return self._leaf(self._texts(drawn.line))
            case _ if (texts := self._folded(drawn)) is not None:
                return self._leaf(texts)
            case _:
                return self._box(drawn)

    def _leaf(self, texts: list[str]) -> tuple[list[str], list[str]]:
        name = self._node("[", texts, "]")
        return [name], [name]

    def _folded(self, drawn: Drawn) -> list[str] | None:
        """A leaf with what stands round it as lines of one node; None for anything larger."""
        if drawn.shape == "leaf":
            return self._texts(drawn.line)
        if drawn.shape != "box":
            return None
        inner = self._folded(drawn.parts[0])
        return None if inner is None else [*inner, *self._texts(drawn.line)]

    def _chain(self, parts: tuple[Drawn, ...]) -> tuple[list[str], list[str]]:
        entries, ends = self.draw(parts[0])
        for part in parts[1:]:
            following, after = self.draw(part)
            self.lines.extend(f"    {end} --> {entry}" for end in ends for entry in following)
            ends = after
        return entries, ends

    def _fork(self, drawn: Drawn) -> tuple[list[str], list[str]]:
        fork = self._node("{", self._texts(drawn.line), "}")
        ends: list[str] = []
        for index, branch in enumerate(drawn.parts):
            entries, after = self.draw(branch)
            arrow = f"-- {_quoted(drawn.names[index])} -->" if drawn.names else "-->"
            self.lines.extend(f"    {fork} {arrow} {entry}" for entry in entries)
            ends += after
        return [fork], ends

    def _box(self, drawn: Drawn) -> tuple[list[str], list[str]]:
        """A part round others; its items side by side, its iterations one after the other."""
        self._count += 1
        self.lines.append(f"    subgraph s{self._count} [{_quoted(*self._texts(drawn.line))}]")
        if drawn.shape == "items":
            drawings = [self.draw(part) for part in drawn.parts]
            entries = [entry for begins, _ in drawings for entry in begins]
            ends = [end for _, after in drawings for end in after]
        else:
            entries, ends = self._chain(drawn.parts)
        self.lines.append("    end")
        return entries, ends

    def _texts(self, line: Line) -> list[str]:
        mark = f"{line.mark} " if self._marked and line.mark else ""
        notes = [", ".join(line.notes)] if line.notes else []
        return [f"{mark}{line.label}", *notes]

    def _node(self, left: str, texts: list[str], right: str) -> str:
        self._count += 1
        name = f"n{self._count}"
        self.lines.append(f"    {name}{left}{_quoted(*texts)}{right}")
        return name


def _quoted(*texts: str) -> str:
    """Lines of text as one label: nothing in it is taken for an end of it, or for markup."""
    spelled = (" ".join(text.split()).translate(_ESCAPES) for text in texts)
    return '"' + "<br/>".join(spelled) + '"'

"""Reads a Mermaid flowchart as strictly as its grammar does, as far as ours go."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TEXT = r'"((?:[^"#<>&`\\]|#\w+;|<br/>)*)"'
_NODE = re.compile(rf"    (\w+)(?:\[{_TEXT}\]|\{{{_TEXT}\}}|\(\({_TEXT}\)\))")
_EDGE = re.compile(rf"    (\w+) -(?:- {_TEXT} -)?-> (\w+)")
_BOX = re.compile(rf"    subgraph (\w+) \[{_TEXT}\]")
_SPELLED = {"#35;": "#", "#quot;": '"', "#lt;": "<", "#gt;": ">", "#amp;": "&", "#96;": "`",
            "#92;": "\\", "<br/>": "\n"}  # fmt: skip


@dataclass
class Chart:
    """Nodes and boxes with their labels, and arrows between nodes."""

    nodes: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, str] = field(default_factory=dict)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def edges(self) -> set[tuple[str, str]]:
        """The arrows by the labels of their ends."""
        return {(self.nodes[one], self.nodes[other]) for one, other, _ in self.arrows}

    def reachable(self, forward: bool) -> set[str]:
        """All nodes that a way leads to from the start, or from which one leads to the end."""
        found = {"start" if forward else "done"}
        while True:
            pairs = [(a, b) if forward else (b, a) for a, b, _ in self.arrows]
            more = {b for a, b in pairs if a in found} - found
            if not more:
                return found
            found |= more


def read(text: str) -> Chart:
    """The flowchart that *text* spells. AssertionError for a line or a label that is none."""
    head, *lines = text.splitlines()
    assert head == "flowchart LR"
    chart = Chart()
    depth = 0
    for line in lines:
        if line == "    end":
            depth -= 1
        elif box := _BOX.fullmatch(line):
            assert box[1] not in chart.boxes, line
            chart.boxes[box[1]] = _plain(box[2])
            depth += 1
        elif edge := _EDGE.fullmatch(line):
            chart.arrows.append((edge[1], edge[3], _plain(edge[2] or "")))
        else:
            node = _NODE.fullmatch(line)
            assert node, line
            assert node[1] not in chart.nodes, line
            chart.nodes[node[1]] = _plain(node[2] or node[3] or node[4] or "")
        assert depth >= 0, line
    assert depth == 0
    for one, other, _ in chart.arrows:
        assert {one, other} <= chart.nodes.keys(), (one, other)
    return chart


def _plain(text: str) -> str:
    return re.sub(r"#\w+;|<br/>", lambda found: _SPELLED[found[0]], text)

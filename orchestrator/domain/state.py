"""Where an instance stands.

The state needs no definition: any history can be folded, also one whose saga is long gone.
Paths are `saga/1/0`: the saga's name, then the index of the child at each level. A scope that
runs again carries its attempt in the segment (`saga/1/0@2`), a loop its iteration (`saga/1/0#2`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain import events as ev
from orchestrator.domain.events import Failure, Json, Status
from orchestrator.domain.node_state import NodeState
from orchestrator.errors import IllegalTransitionError


@dataclass(frozen=True, slots=True)
class Halt:
    """Why the whole instance turns round, and which steps may be under way meanwhile."""

    reason: str
    running: frozenset[str]
    failure: Failure | None = None


@dataclass(slots=True)
class SagaState:
    """One instance, folded. It belongs to whoever folds it: `evolve` changes it in place."""

    saga_id: str
    status: Status = Status.PENDING
    version: int = 0
    saga: str = ""
    saga_version: int = 0
    fingerprint: str = ""
    input: Json = Json("null")
    context: Mapping[str, object] = field(default_factory=dict)
    deadline: datetime | None = None
    parent: str = ""
    parent_node: str = ""
    root: NodeState = field(default_factory=NodeState)
    outputs: dict[str, Json] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)
    children: dict[str, str] = field(default_factory=dict)
    mailbox: dict[str, list[Json]] = field(default_factory=dict)
    waiters: dict[str, list[str]] = field(default_factory=dict)
    cancel: ev.CancelRequested | None = None
    halt: Halt | None = None
    pivoted: bool = False
    inbox_seen: int = 0
    result: Json | None = None
    failure: Failure | None = None
    reason: str = ""
    stuck: ev.SagaStuck | None = None
    before_stuck: Status = Status.PENDING

    @property
    def undo_stack(self) -> tuple[str, ...]:
        """What is left to be undone, the oldest first."""
        return tuple(self.root.to_undo or ())

    def at(self, path: str) -> NodeState:
        """The state of the place *path*, made when it is not there yet."""
        return self.line(path)[-1]

    def known(self, path: str) -> NodeState:
        """The state of the place *path*; IllegalTransitionError where nothing ever happened."""
        node = self.root
        for segment in path.split("/")[1:]:
            found = node.children.get(segment)
            if found is None:
                raise IllegalTransitionError(
                    f"nothing is known of {path} of saga {self.saga_id}; nothing was changed"
                )
            node = found
        return node

    def find(self, path: str) -> NodeState | None:
        """The state of the place *path*; None where nothing ever happened."""
        name, *segments = path.split("/")
        node: NodeState | None = self.root if name == self.saga else None
        for segment in segments:
            if node is None:
                return None
            node = node.children.get(segment)
        return node

    def line(self, path: str) -> list[NodeState]:
        """The states from the root down to *path*, made when they are not there yet."""
        node = self.root
        line = [node]
        for segment in path.split("/")[1:]:
            found = node.children.get(segment)
            if found is None:
                found = node.children[segment] = NodeState()
            node = found
            line.append(node)
        return line

"""What must be undone, told from a history as plainly as can be, without the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event
from orchestrator.domain.steps import Step


@dataclass
class Ledger:
    """Effects that may have happened and that something undoes, the oldest first."""

    steps: Mapping[str, Step[Any, Any]]
    left: dict[str, str] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)

    def read(self, events: Iterable[Event]) -> Ledger:
        for event in events:
            self.note(event)
        return self

    def note(self, event: Event) -> None:
        match event:
            case ev.StepSucceeded() if self._undoable(event.step):
                self._done(event.node, event.step)
            case ev.StepInDoubt() if self._undoable(event.step):
                self.left.setdefault(event.node, event.step)
            case ev.ProbeAnswered(answer="happened") if self._undoable(event.step):
                self._done(event.node, event.step)
            case ev.StepResolved(happened=True, output=output) if output is not None:
                if self._undoable(event.step):
                    self._done(event.node, event.step)
            case ev.ProbeAnswered(answer="not_happened") | ev.StepResolved(happened=False):
                self.left.pop(event.node, None)
            case ev.ChildEnded(status="completed"):
                self._done(event.node, "child")
            case ev.StepCompensated() | ev.CompensationSkipped():
                self.left.pop(event.node, None)
                self.undone.append(event.node)
            case _:
                pass

    def below(self, path: str) -> list[str]:
        """What is left at or below *path*."""
        return [left for left in self.left if f"{left}/".startswith(f"{path}/")]

    def _undoable(self, name: str) -> bool:
        return self.steps[name].undo_of_completed is not None

    def _done(self, path: str, name: str) -> None:
        self.left.pop(path, None)
        self.left[path] = name

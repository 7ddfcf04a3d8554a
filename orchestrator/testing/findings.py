"""What is looked at when a run has ended, and how it is told what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain import events as ev
from orchestrator.ports import Filter, Instance
from orchestrator.runtime.service import HistoryEntry, Orchestrator
from orchestrator.testing.tables import indented


@dataclass(frozen=True, slots=True)
class Broken:
    """A law that a run broke, what was seen of it, and what may be done about it."""

    problem: str
    seen: tuple[str, ...] = ()
    mend: str = ""

    def __str__(self) -> str:
        parts = [self.problem, *(indented(line) for line in self.seen)]
        return "\n".join([*parts, *([self.mend] if self.mend else [])])


@dataclass(frozen=True, slots=True)
class Told:
    """One instance with its history."""

    row: Instance
    events: tuple[HistoryEntry, ...]

    @property
    def standing(self) -> dict[str, str]:
        """What counts in the end: the name of the step by each path that succeeded and stands."""
        found: dict[str, str] = {}
        for entry in self.events:
            match entry.event:
                case ev.StepSucceeded(node=node, step=step):
                    found[node] = step
                case ev.ProbeAnswered(node=node, step=step, answer="happened"):
                    found[node] = step
                case ev.StepCompensated(node=node):
                    found.pop(node, None)
                case _:
                    pass
        return found


async def instances(service: Orchestrator) -> list[Told]:
    """All instances, parents before their children."""
    rows = await service.search(Filter(limit=1_000_000))
    return [
        Told(row, tuple([entry async for entry in service.history(row.saga_id)]))
        for row in sorted(rows, key=lambda row: (row.parent is not None, row.saga_id))
    ]

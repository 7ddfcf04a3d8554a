"""A database server in memory: row locks, commits that take time, outages; the rows are the fake's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.adapters.memory.public import (
    MemoryInbox,
    MemoryReadModel,
    MemoryRequests,
)
from orchestrator.adapters.memory.shared_state import MemorySharedState
from orchestrator.adapters.memory.tables import Tables
from orchestrator.adapters.memory.workers import (
    MemoryFleet,
)
from orchestrator.errors import BusyError, UnavailableError
from orchestrator.ports import Append
from tests.simulation.faults import Faults
from tests.simulation.rows import SimEventStore, SimFeed, SimWorkQueue
from tests.simulation.timeline import Timeline

LOCK_TIMEOUT = 0.4

Rows = Callable[[], Sequence[str]]


def no_rows() -> Sequence[str]:
    return ()


@dataclass(eq=False, slots=True)
class Work:
    """One transaction on the server. *begin* runs once its locks are held, *act* at the commit."""

    node: Any
    what: str
    act: Callable[[Any], Any]
    reply: Callable[[Any, Exception | None], None]
    rows: Rows = no_rows
    begin: Callable[[], Any] = lambda: None
    writes: bool = False
    hold: float = 0.0
    gate: bool = False
    fate: str = ""
    locked: tuple[str, ...] = ()
    begun: Any = None
    state: str = "sent"


@dataclass(eq=False)
class Database:
    """The server. `fleet` and the like are its tables' own; nodes reach it through a `Wire`."""

    timeline: Timeline
    faults: Faults
    event_store: type[SimEventStore] = SimEventStore
    work_queue: type[SimWorkQueue] = SimWorkQueue
    feed_type: type[SimFeed] = SimFeed
    inbox_type: type[MemoryInbox] = MemoryInbox
    fleet_type: type[MemoryFleet] = MemoryFleet
    last: int = 0
    away_until: float = 0.0
    owners: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    retired: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = Tables(self)
        self.events = self.event_store(self)
        self.queue = self.work_queue(self.tables)
        self.feed = self.feed_type(self)
        self.inbox = self.inbox_type(self.tables)
        self.requests = MemoryRequests(self.tables)
        self.reads = MemoryReadModel(self.tables)
        self.shared = MemorySharedState(self)
        self._locks: dict[str, Work] = {}
        self._waiting: list[Work] = []
        self._open: list[Work] = []

    def now(self) -> Any:
        return self.timeline.date()

    @property
    def locked(self) -> Any:
        return self._locks.keys()

    @property
    def away(self) -> bool:
        return self.timeline.now < self.away_until

    def note_append(self, append: Append) -> None:
        """Remember who wrote under which epoch; an epoch that is over may write nothing."""
        newest = self.tables.sagas[append.saga_id].epoch
        if append.epoch != newest:
            self.wrong.append(f"I2 {append.saga_id}: epoch {append.epoch} wrote after {newest}")
        if append.events:
            place = append.saga_id, append.epoch
            self.owners.setdefault(place, set()).add(append.owner)

    # ------------------------------------------------------------------ one transaction

    def arrive(self, work: Work) -> None:
        """A request has come in."""
        if work.node.dead and self.timeline.random.random() < 0.5:
            work.state = "lost"
            return
        if self.away:
            self._fail(work, UnavailableError("the database is away"))
            return
        self.timeline.after(LOCK_TIMEOUT, self._give_up, work)
        self._waiting.append(work)
        self._try(work)

    def _try(self, work: Work) -> None:
        try:
            rows = tuple(dict.fromkeys(work.rows()))
            waits = work.gate and not work.writes
            if waits and any(other.gate for other in self._open):
                return  # a reader of the feed waits for the appends under way
            if any(row in self._locks for row in rows):
                return
            self._waiting.remove(work)
            self._locks.update(dict.fromkeys(rows, work))
            work.locked = rows
            work.begun = work.begin()
        except Exception as error:  # noqa: BLE001 - as a server would send it back
            self._end(work, "aborted")
            self._fail(work, error)
            return
        work.state = "open"
        if not work.writes:
            self._commit(work)
            return
        self._open.append(work)
        self.timeline.after(work.hold, self._commit, work)

    def lock(self, work: Work, rows: Sequence[str]) -> None:
        """Take more locks on rows that nobody has."""
        self._locks.update(dict.fromkeys(rows, work))
        work.locked = (*work.locked, *rows)

    def _commit(self, work: Work) -> None:
        if work.state != "open":
            return
        if work.fate == "abort":
            self._end(work, "aborted")
            self._fail(work, BusyError("rolled back"))
            return
        try:
            result, error = work.act(work.begun), None
        except Exception as problem:  # noqa: BLE001 - as a server would send it back
            result, error = None, problem
        self._end(work, "done")
        work.reply(result, error)

    def _give_up(self, work: Work) -> None:
        if work in self._waiting:
            self._end(work, "aborted")
            self._fail(work, BusyError("a lock could not be had in time"))

    def _fail(self, work: Work, error: Exception) -> None:
        work.state = "aborted"
        work.reply(None, error)

    def _end(self, work: Work, state: str) -> None:
        work.state = state
        for row in work.locked:
            self._locks.pop(row, None)
        work.locked = ()
        if work in self._waiting:
            self._waiting.remove(work)
        if work in self._open:
            self._open.remove(work)
        for other in list(self._waiting):
            if other.state == "sent":
                self._try(other)

    # ------------------------------------------------------------------ what befalls it

    def go_away(self, seconds: float) -> None:
        """Crash and come back: what is open is committed or rolled back, what waits is lost."""
        self.away_until = self.timeline.now + seconds
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work.state = "aborted"
            work.reply(None, UnavailableError("the server went away"))
        for work in list(self._open):
            if work.state == "open":
                if self.timeline.random.random() < 0.5:
                    self._commit_unheard(work)
                else:
                    self._end(work, "aborted")
                    work.reply(None, work.node.unknown("the server went away", work.writes))

    def _commit_unheard(self, work: Work) -> None:
        reply = work.reply

        def unheard(result: Any, error: Exception | None) -> None:
            reply(None, work.node.unknown("the server went away", work.writes))

        work.reply = unheard
        self._commit(work)

    def forget(self, node: Any) -> None:
        """A process has died: what it had open and not yet committed may be rolled back."""
        for work in list(self._open):
            if work.node is node and self.timeline.random.random() < 0.5:
                self._end(work, "aborted")

    def heal(self) -> None:
        self.away_until = 0.0

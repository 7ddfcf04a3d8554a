"""One process's way to the database: everything takes time, and anything may be lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.errors import BusyError, UnavailableError, UnknownOutcomeError
from tests.simulation.database import Database, Rows, Work, no_rows

COMMAND_TIMEOUT = 0.5
GHOST = 1.0
"""How long a transaction may go on that its client has given up."""


class Place(Protocol):
    """The process at this end of the wire, as the wire sees it."""

    loop: Any
    dead: bool
    cut: str
    renewals_lost: bool

    async def point(self, where: str) -> None: ...


class Wire:
    """Sends work to the server and brings the answer back, or what the client makes of silence."""

    def __init__(self, database: Database, place: Place) -> None:
        self.database = database
        self.place = place
        self.timeline = database.timeline
        self.faults = database.faults

    @property
    def dead(self) -> bool:
        return self.place.dead

    @staticmethod
    def unknown(why: str, writes: bool) -> Exception:
        """What a lost answer means to the client."""
        return UnknownOutcomeError(why) if writes else UnavailableError(why)

    async def ask(
        self,
        what: str,
        act: Callable[[Any], Any],
        *,
        rows: Rows = no_rows,
        begin: Callable[[], Any] = lambda: None,
        writes: bool = False,
        decides: bool = False,
        gate: bool = False,
        fate: str = "",
        tell: str = "",
    ) -> Any:
        """The answer to *what*. With *decides* a lost answer is an UnknownOutcomeError."""
        faults, chance = self.faults, self.timeline.random
        await self.place.point(what)
        if faults.strikes("database away", what):
            self.database.go_away(chance.choice((0.1, 0.5, 2.0)))
        if faults.strikes("call refused", what):
            raise UnavailableError("the connection was refused")
        answer: asyncio.Future[Any] = self.place.loop.create_future()
        hold = chance.uniform(0.0005, 0.003) if writes else 0.0
        if writes and faults.strikes("commit slow", what):
            hold = chance.uniform(0.05, COMMAND_TIMEOUT * 0.9)
        if fate == "later":
            hold = chance.uniform(0.1, GHOST)
        back = chance.uniform(0.0005, 0.002)
        if faults.strikes("answer slow", what):
            back = chance.uniform(0.05, 0.4)

        def reply(result: Any, error: Exception | None) -> None:
            if error is None and fate == "unheard":
                error = self.unknown("the answer was lost", decides)
            self.timeline.say(f"{self.place.loop.name} {what} {tell} -> {_shown(result, error)}")
            self.timeline.after(back, deliver, result, error)

        def deliver(result: Any, error: Exception | None) -> None:
            if self.place.dead or answer.done() or self.place.cut:
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        def give_up() -> None:
            if not answer.done():
                work.fate = work.fate or ("abort" if chance.random() < 0.5 else "")
                answer.set_exception(self.unknown("no answer in time", decides))

        work = Work(self, what, act, reply, rows, begin, writes, hold, gate, "")
        if self.place.cut != "both":
            late = fate == "later" and chance.random() < 0.5
            there = chance.uniform(0.01, GHOST) if late else chance.uniform(0.0005, 0.002)
            self.timeline.after(there, self.database.arrive, work)
        else:
            work.state = "lost"
        if fate == "later":
            answer.set_exception(self.unknown("the connection broke", decides))
        elif fate == "abort":
            work.fate = "abort"
            work.reply = lambda result, error: reply(None, self.unknown("it broke", decides))
        timer = self.place.loop.call_later(COMMAND_TIMEOUT, give_up)
        try:
            result = await answer
        finally:
            timer.cancel()
        await self.place.point(f"{what} answered")
        return result

    def fate_of(self, kind: str, where: str) -> str:
        """What becomes of a write, for better or worse."""
        for fault, fate in FATES[kind]:
            if self.faults.strikes(fault, where):
                return fate
        return ""

    def refuse_busy(self, kind: str, where: str) -> None:
        if self.faults.strikes(kind, where):
            raise BusyError("a lock could not be had in time")


FATES = {
    "append": (
        ("append unknown, written", "unheard"),
        ("append unknown, not written", "abort"),
        ("append unknown, written later", "later"),
    ),
    "write": (("write unknown, done", "unheard"), ("write unknown, not done", "abort")),
    "claim": (("claim lost on the way back", "unheard"),),
}


def _shown(result: Any, error: Exception | None) -> str:
    if error is not None:
        return f"{type(error).__name__}: {error}"
    if isinstance(result, dict | list | tuple):
        return f"{len(result)} rows"
    return "" if result is None else type(result).__name__


def at_once(work: Any) -> Any:
    """What a coroutine of the fake gives: it never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the fake in memory waited for something")

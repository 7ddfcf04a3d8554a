"""A wire to PostgreSQL that can be cut round a COMMIT, slowed down, made deaf or dumb.

In a test:

    async with WireProxy(dsn) as wire:
        lost = wire.cut_after_commit(matching="INSERT INTO event")
        ...  # use wire.dsn
    # leaving raises FaultDidNotFireError when a planned fault did not strike

On its own, told what to do over a line-based socket (`wire_control.py` has the words and a client):

    python -m tests.faults.wire_proxy --listen 6001 --to 5432 --control 6002
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from tests.faults.faults import Deed, Fault, Point, is_named
from tests.faults.wire_session import Wire


class FaultDidNotFireError(AssertionError):
    """A planned fault never struck: the test has shown nothing."""


class WireProxy:
    """Listens on loopback and passes everything on to *target*, a DSN or `host:port`.

    Every method that plans a fault takes `matching` (a pattern, looked for in the statements of the
    transaction on one line without comments), `session` (a pattern for the application_name), `times`
    (None: every time), `skip` (let so many go first), `chance`, and `must_fire`.
    """

    def __init__(self, target: str, *, port: int = 0, host: str = "127.0.0.1") -> None:
        parts = urlsplit(target if "://" in target else f"postgresql://{target}")
        self._parts = parts
        self._to = parts.hostname or "127.0.0.1", parts.port or 5432
        self._host, self._wanted_port = host, port
        self._server: asyncio.Server | None = None
        self._wires: set[Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()
        """What passed: `connections`, `statements`, `commits`."""

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self._host, self._wanted_port)
        self._wanted_port = self.port

    async def stop(self) -> None:
        """Cut every connection and listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for fault in self.faults:
            fault.heal()
        self.cut_now()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if error is None:
            self.check()

    def check(self, faults: Iterable[Fault] | None = None) -> None:
        """Raise FaultDidNotFireError unless all *faults* (or all that were planned) struck."""
        planned = self.faults if faults is None else list(faults)
        silent = [str(fault) for fault in planned if fault.must_fire and not fault.fired]
        if silent:
            raise FaultDidNotFireError(
                f"did not strike: {silent}; what passed: {dict(self.counts)}"
            )

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            return self._wanted_port
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def dsn(self) -> str:
        """The target's DSN by way of this proxy."""
        user = self._parts.netloc.rpartition("@")[0]
        place = f"{self._host}:{self.port}"
        return urlunsplit(self._parts._replace(netloc=f"{user}@{place}" if user else place))

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._wires)

    # ------------------------------------------------------------------ faults at a commit

    def cut_before_commit(self, matching: str = "", **how: Any) -> Fault:
        """Cut the connection when a commit is about to be passed on: it never happens."""
        return self._plan(Deed.CUT_BEFORE, Point.COMMIT, matching, how)

    def cut_after_commit(self, matching: str = "", **how: Any) -> Fault:
        """Pass a commit on, wait for its answer, keep that and cut: it happened, nobody knows."""
        return self._plan(Deed.CUT_AFTER, Point.COMMIT, matching, how)

    def delay_commit(self, seconds: float, matching: str = "", **how: Any) -> Fault:
        """Hold a commit back; it is passed on in the end, even if its client has given up."""
        return self._plan(Deed.DELAY, Point.COMMIT, matching, {**how, "seconds": seconds})

    def drop_replies_of_commit(self, matching: str = "", **how: Any) -> Fault:
        """From a commit on nothing of that connection comes back, but it stays open."""
        return self._plan(Deed.DROP_REPLIES, Point.COMMIT, matching, how)

    def call_before_commit(
        self, act: Callable[[int], None], matching: str = "", **how: Any
    ) -> Fault:
        """Call *act* with the client's port when a commit is about to be passed on."""
        return self._plan(Deed.CALL_BEFORE, Point.COMMIT, matching, {**how, "act": act})

    def call_after_commit(
        self, act: Callable[[int], None], matching: str = "", **how: Any
    ) -> Fault:
        """Call *act* when a commit is done, before its client hears of it."""
        return self._plan(Deed.CALL_AFTER, Point.COMMIT, matching, {**how, "act": act})

    # ------------------------------------------------------------------ faults at any statement

    def at_statement(self, deed: Deed | str, matching: str = "", **how: Any) -> Fault:
        """*deed* at any statement that matches, be it a read or in the middle of a transaction."""
        return self._plan(Deed(deed), Point.STATEMENT, matching, how)

    def cut_at_message(self, count: int, **how: Any) -> Fault:
        """Cut a connection after the *count*-th message of its client was passed on."""
        return self._plan(Deed.CUT_BEFORE, Point.MESSAGE, "", {**how, "at_message": count})

    # ------------------------------------------------------------------ faults until they are healed

    def black_hole(self, **how: Any) -> Fault:
        """Hold everything back, both ways, until healed; new connections get no answer."""
        return self._plan(Deed.BLACK_HOLE, Point.ALWAYS, "", {"times": None, **how})

    def drop_replies(self, **how: Any) -> Fault:
        """Requests arrive, replies are held back until healed."""
        return self._plan(Deed.DROP_REPLIES, Point.ALWAYS, "", {"times": None, **how})

    def delay(self, seconds: float, **how: Any) -> Fault:
        """Every packet, of either side, takes so much longer."""
        how = {"times": None, **how, "seconds": seconds}
        return self._plan(Deed.DELAY, Point.ALWAYS, "", how)

    def trickle(self, seconds: float = 1.0, **how: Any) -> Fault:
        """Every byte, of either side, takes so long, until healed."""
        return self._plan(
            Deed.TRICKLE, Point.ALWAYS, "", {"times": None, **how, "seconds": seconds}
        )

    def refuse(self, **how: Any) -> Fault:
        """New connections are cut at once."""
        return self._plan(Deed.REFUSE, Point.ALWAYS, "", {"times": None, **how})

    def cut_now(self, session: str = "") -> int:
        """Cut the open connections whose application_name matches; how many there were."""
        wires = [wire for wire in self._wires if is_named(session, wire.session)]
        for wire in wires:
            wire.cut()
        return len(wires)

    def heal(self, faults: Iterable[Fault] | None = None) -> None:
        """End *faults*, or all: what was held back is delivered."""
        for fault in tuple(self.faults if faults is None else faults):
            fault.heal()

    # ------------------------------------------------------------------ inside

    def _plan(self, deed: Deed, point: Point, matching: str, how: dict[str, Any]) -> Fault:
        fault = Fault(deed, point, matching, **how)
        self.faults.append(fault)
        return fault

    def always(self, deed: Deed, session: str) -> list[Fault]:
        """The faults of a kind that are on, for a session, until they are healed."""
        return [
            fault
            for fault in self.faults
            if fault.point is Point.ALWAYS and fault.deed is deed and fault.hears(session)
        ]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        wire = Wire(self, reader, writer)
        self._wires.add(wire)
        self.counts["connections"] += 1
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await wire.run(self._to)
        finally:
            wire.cut()
            self._wires.discard(wire)
            self._tasks.discard(task)


if __name__ == "__main__":
    from tests.faults.wire_control import main

    main()

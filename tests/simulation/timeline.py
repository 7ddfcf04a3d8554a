"""Virtual time, and an event loop for each simulated process: one seed, one order of things."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
from asyncio.events import _set_running_loop
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When every simulation begins."""

FIRST = 1_000.0
"""A loop time of zero would be taken for "not yet" by those who look at it."""

TURN = 1e-6
"""What one callback takes: time goes on even while a process never rests."""
MOST_TURNS = 150_000


class SpinningError(Exception):
    """Something runs without end."""


class Timeline:
    """What happens next. Everything that chance decides comes from `random`, which is seeded.

    While a process is ready to run, one of its ready callbacks runs, drawn by chance; when none
    is, time jumps to the next thing that is due.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = FIRST
        self.turns = 0
        self.disorder = self.random.choice((0.0, 0.1, 1.0))
        """How often a ready callback is drawn by chance, and not in its order."""
        self.before_turn: Callable[[NodeLoop], None] = lambda loop: None
        self.trace: list[str] = []
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._loops: list[NodeLoop] = []
        self._current: NodeLoop | None = None

    def date(self) -> datetime:
        """The same time as a date."""
        return START + timedelta(seconds=self.now - FIRST)

    def say(self, text: str) -> None:
        """Write a line into the trace."""
        self.trace.append(f"{self.now - FIRST:9.4f} {text}")

    def after(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Have *act* called in *seconds*."""
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), act, args))

    def add(self, loop: NodeLoop) -> None:
        self._loops.append(loop)

    def remove(self, loop: NodeLoop) -> None:
        self._loops.remove(loop)

    def run(self, until: float, done: Callable[[], bool]) -> bool:
        """Go on until *done* or the time *until*; whether it was done. *done* is asked when all
        is quiet."""
        try:
            while True:
                runnable = [loop for loop in self._loops if loop.ready and not loop.frozen]
                if runnable:
                    self._turn(runnable)
                    continue
                if done():
                    return True
                if self.turns > MOST_TURNS:
                    raise SpinningError(f"{self.turns} turns: something never rests")
                if not self._due or self._due[0][0] > until:
                    self.now = max(self.now, until)
                    return False
                self._jump()
        finally:
            self._current = None
            _set_running_loop(None)

    def _turn(self, runnable: list[NodeLoop]) -> None:
        chance = self.random.random
        loop = runnable[0] if len(runnable) == 1 else runnable[int(chance() * len(runnable))]
        self.turns += 1
        self.now += TURN
        self.before_turn(loop)
        if loop.frozen or loop.dead:
            return
        ready, index = loop.ready, 0
        if len(ready) > 1 and chance() < self.disorder:
            index = int(chance() * len(ready))
        handle = ready.pop(index)
        if not handle._cancelled:
            if loop is not self._current:
                self._current = loop
                _set_running_loop(loop)
            handle._run()

    def _jump(self) -> None:
        due = self._due
        when = self.now = max(due[0][0], self.now)
        while due and due[0][0] <= when:
            _, _, act, args = heapq.heappop(due)
            act(*args)


class NodeLoop(asyncio.AbstractEventLoop):
    """The event loop of one process. Frozen it stands still; dead it never runs again."""

    def __init__(self, timeline: Timeline, name: str, trouble: Callable[[str], None]) -> None:
        self.ready: list[asyncio.Handle] = []
        self.frozen = False
        self.dead = False
        self.name = name
        self._timeline = timeline
        self._trouble = trouble
        timeline.add(self)

    def die(self) -> None:
        """End here and now: no callback and no `finally` of it runs any more."""
        self.dead = True
        self._timeline.remove(self)

    def bury(self) -> None:
        """Let go of what was left behind, when nobody looks any more."""
        self.dead = True
        self.ready.clear()
        _set_running_loop(self)
        try:
            for task in asyncio.all_tasks(self):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # the dead rest
                close_for_good(task.get_coro())
        finally:
            _set_running_loop(None)

    def time(self) -> float:
        return self._timeline.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        handle = asyncio.Handle(callback, args, self, context)
        self._timeline.after(max(delay, 0.0), self._expired, handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _expired(self, handle: asyncio.Handle) -> None:
        if not handle._cancelled:
            self.ready.append(handle)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        if self.dead:
            coro.close()
            raise RuntimeError("a dead process begins nothing")
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            error = context.get("exception")
            self._trouble(f"{self.name}: {context.get('message')}: {error!r}")


def close_for_good(coro: Any) -> None:
    """Close a coroutine, whatever its `finally` blocks still want to await or to raise."""
    for _ in range(50):
        try:
            coro.close()
        except BaseException:  # noqa: BLE001 - it has been dead for long
            continue
        return

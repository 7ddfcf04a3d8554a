"""An event loop of its own whose time jumps: waiting costs nothing, and nothing comes from outside."""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
from asyncio.events import _get_running_loop, _set_running_loop
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

from orchestrator.errors import OrchestratorError

START = datetime(2024, 1, 1, tzinfo=UTC)
"""When every simulation begins."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FIRST = 1_000.0  # a loop time of zero is taken for "not yet" by those who look at it


_NO_WORLD_OUTSIDE = (
    "a simulated step cannot reach a network, a pipe or a process: give the simulator a fake in "
    "its place (sim.resources[Bank] = FakeBank()), or stub the step (sim.stub(take_payment, ...))"
)


class SimulationError(OrchestratorError):
    """The simulation is not set up for what the saga does; it says nothing about the saga."""


class _JumpingSelector(selectors.BaseSelector):
    """Never waits: asked to, it lets *idle* have something happen, or moves the time on."""

    def __init__(self) -> None:
        self.now = _FIRST
        self.idle: Callable[[float | None], bool] = lambda timeout: False
        self.refuse: Callable[[SimulationError], SimulationError] = lambda error: error
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._keys:
            raise self.refuse(SimulationError(_NO_WORLD_OUTSIDE))
        key = selectors.SelectorKey(fileobj, _number(fileobj), events, data)
        self._keys[fileobj] = key  # the loop's own, by which threads would wake it
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Called with 0 while anything is ready; otherwise the world stands still but for time."""
        if timeout == 0 or self.idle(timeout):
            return []
        if timeout is not None:
            self.now += max(timeout, 0.0)
        return []

    def close(self) -> None:
        self._keys.clear()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs until nothing is left to do at this instant, then jumps to the next timer.

    What would go to a thread runs inline, so that the order of things depends on nothing else.
    """

    _clock_resolution: float

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._trouble: SimulationError | None = None
        super().__init__(self._jumping)
        self._jumping.refuse = self.refuse
        self.set_exception_handler(_let_the_dead_rest)

    def time(self) -> float:
        return self._jumping.now

    def now(self) -> datetime:
        """The same time as a date: this loop is a `Clock`."""
        return START + timedelta(seconds=self._jumping.now - _FIRST)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call *func* here and now."""
        answer: asyncio.Future[T] = self.create_future()
        try:
            answer.set_result(func(*args))
        except StopIteration as error:
            answer.set_exception(RuntimeError(f"the function raised {error!r}"))
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the answer
            answer.set_exception(error)
        return answer

    def refuse(self, error: SimulationError) -> SimulationError:
        """Stop: whoever drives this loop gets *error*, whatever becomes of it where it is raised."""
        self._trouble = self._trouble or error
        self.stop()
        return error

    def drive(
        self,
        *,
        released: Callable[[], bool],
        until: Callable[[], bool],
        span: timedelta | None = timedelta(0),
    ) -> bool:
        """Run for at most *span* of virtual time (None: as long as it takes); did *until* hold?

        *released* is asked whenever all is quiet, and lets one thing go that was held back.
        """
        horizon = math.inf if span is None else self.time() + span.total_seconds()

        def idle(timeout: float | None) -> bool:
            if until():
                self.stop()
                return True
            if released():
                return True
            if timeout is None or self.time() + timeout > horizon:
                if span is not None:
                    self._jumping.now = max(self.time(), horizon)
                self.stop()
                return True
            # A timer that is due at this very instant must count as due after decades, too.
            self._clock_resolution = max(1e-9, 2 * math.ulp(self.time() + timeout))
            return False

        self._jumping.idle = idle
        with _undisturbed():
            self.run_forever()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        return until()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Step out of a loop that runs in this thread, so that another can run to its end meanwhile.

    The caller's loop stands still for as long; a thread of its own would change who calls the
    user's fakes, and some of them (a connection of sqlite3, say) care.
    """
    outer = _get_running_loop()
    if outer is None:
        yield
        return
    task = asyncio.current_task(outer)
    if task is not None:
        _leave_task(outer, task)
    _set_running_loop(None)
    try:
        yield
    finally:
        _set_running_loop(outer)
        if task is not None:
            _enter_task(outer, task)


def _let_the_dead_rest(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A dead process leaves tasks behind that nobody will finish; other trouble is told."""
    if "was destroyed but it is pending" not in str(context.get("message")):
        loop.default_exception_handler(context)

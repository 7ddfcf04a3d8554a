"""Threads for plain functions: none that hangs stands in the way of others, or of the process's end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_KEPT = 32
"""Threads that wait for the next function; more of them end when they are done."""

_Work = tuple["Future[Any]", Callable[[], Any]]
_Queue = SimpleQueue["_Work | None"]


class Threads(Executor):
    """As many threads as there are functions to run. The standard pool joins its threads at exit."""

    def __init__(self) -> None:
        self._idle: list[_Queue] = []
        self._over = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            waiting = self._idle.pop()
        except IndexError:
            waiting = SimpleQueue()
            serve = partial(self._serve, waiting)
            threading.Thread(target=serve, daemon=True, name="step").start()
        waiting.put((future, partial(fn, *args, **kwargs)))
        return future

    def close(self) -> None:
        """Let the threads end, each when it is done. Nothing is waited for."""
        self._over = True
        with contextlib.suppress(IndexError):  # several may do this at once
            while True:
                self._idle.pop().put(None)

    def _serve(self, waiting: _Queue) -> None:
        while (work := waiting.get()) is not None:
            _run(*work)
            del work  # what it gave is not kept while it waits
            if self._over or len(self._idle) >= _KEPT:
                return
            self._idle.append(waiting)
            if self._over:
                # Whoever said so may have looked before.
                self.close()


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except StopIteration as error:
        # No future takes it: whoever waits would wait for ever.
        future.set_exception(RuntimeError(f"the function raised {error!r}"))
    except BaseException as error:  # noqa: BLE001 - handed to who awaits it, in another thread
        future.set_exception(error)

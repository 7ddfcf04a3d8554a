"""Threads for plain functions: none that hangs stands in the way of others, or of the process's end."""

from __future__ import annotations

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


class Threads(Executor):
    """As many threads as there are functions to run. The standard pool joins its threads at exit."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[_Work]] = []

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

    def _serve(self, waiting: SimpleQueue[_Work]) -> None:
        while True:
            _run(*waiting.get())
            if len(self._idle) >= _KEPT:
                return
            self._idle.append(waiting)


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

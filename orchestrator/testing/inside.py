"""The moments in the middle of a call: one thing is done, and the next is not."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from orchestrator.testing.script import Answer
from orchestrator.testing.snapshot import Snapshot

_MOMENTS = 3

Keep = Callable[[], Any]
"""Gives a copy of the fakes as they stand; None where they cannot be copied."""


class Inside:
    """Looks at the fakes whenever a step's own code calls something, and once it has ended.

    Where they changed twice, the process could have died in between: `dies` is asked with what
    was kept of that moment. Code that goes on after its death goes on for nobody.
    """

    def __init__(
        self, watch: Callable[[], Snapshot], keep: Keep, dies: Callable[[Any], bool]
    ) -> None:
        self._watch, self._keep, self._dies = watch, keep, dies
        self._seen = watch()
        self._kept: Any = None
        self._left = _MOMENTS

    async def call(self, fn: Answer, *given: object) -> Any:
        """What *fn* gives, async or not, looked at from inside."""
        code = getattr(inspect.unwrap(fn), "__code__", None)
        if code is None or sys.getprofile() is not None:
            result = fn(*given)
            return await result if inspect.isawaitable(result) else result

        def hear(frame: FrameType, event: str, arg: object) -> None:
            caller = frame.f_back if event == "call" else frame if event == "c_call" else None
            if caller is not None and caller.f_code is code:
                self.look()

        try:
            with _heard(hear):
                result = fn(*given)
            if inspect.iscoroutine(result):
                result = await self._driven(result, hear)
            elif inspect.isawaitable(result):
                result = await result
        except Exception:
            self.look()
            raise
        self.look()
        return result

    def look(self) -> None:
        """Has something changed since it was looked at last?"""
        if not self._left:
            return
        now = self._watch()
        if now == self._seen:
            return
        self._seen = now
        if self._kept is not None:
            self._left -= 1
            if self._dies(self._kept):
                self._left = 0
                return
        self._kept = self._keep()

    @types.coroutine
    def _driven(
        self, coro: Coroutine[Any, Any, Any], hear: Callable[[FrameType, str, object], None]
    ) -> Generator[Any, Any, Any]:
        """`yield from coro`, looked at only while its own code runs."""
        resume: Callable[[Any], Any] = coro.send
        given: Any = None
        while True:
            try:
                with _heard(hear):
                    awaited = resume(given)
            except StopIteration as end:
                return end.value
            left = self._watch()
            try:
                given, resume = (yield awaited), coro.send
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as error:  # noqa: BLE001 - passed on, as `yield from` does
                given, resume = error, coro.throw
            if self._watch() != left:  # others were at work: what was kept is not true any more
                self._seen, self._kept = self._watch(), None


@contextmanager
def _heard(hear: Callable[[FrameType, str, object], None]) -> Iterator[None]:
    """Calls are told to *hear*. A profile function, because coverage lives by the trace function."""
    sys.setprofile(hear)
    try:
        yield
    finally:
        sys.setprofile(None)

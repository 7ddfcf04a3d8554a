"""Tasks that can die: nothing of a dead process runs on, not even its `finally`."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, NoReturn
from weakref import WeakKeyDictionary


@dataclass(eq=False)
class Life:
    """One process, from its start to its death. What it holds is out of reach afterwards."""

    number: int
    loop: asyncio.AbstractEventLoop
    dead: bool = False
    left_behind: dict[Coroutine[Any, Any, Any], None] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The id under which this process works."""
        return f"00000000-0000-4000-8000-{self.number:012d}"

    async def die(self) -> NoReturn:
        """The process ends here and now, as if its power had been cut."""
        self.dead = True
        await self.rest()

    async def rest(self) -> NoReturn:
        """Wait for what never comes."""
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await self.loop.create_future()

    def bury(self) -> None:
        """Let go of what was frozen. Its `finally` blocks run now, when nobody looks any more."""
        self.dead = True
        while self.left_behind:
            coro, _ = self.left_behind.popitem()
            # Whatever it still wants to await or to raise: it has been dead for long.
            with contextlib.suppress(BaseException):
                coro.close()


class Registry:
    """Which task belongs to which process: children of a task belong where it does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lives: WeakKeyDictionary[asyncio.Task[Any], Life] = WeakKeyDictionary()
        self._beginning: Life | None = None
        self._loop = loop
        loop.set_task_factory(self._make)

    def begin(self, life: Life, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start the first task of a process."""
        self._beginning = life
        try:
            return life.loop.create_task(work, name=f"process {life.number}")
        finally:
            self._beginning = None

    def current(self) -> Life | None:
        """The process that runs at this moment."""
        task = asyncio.current_task(self._loop)
        return None if task is None else self._lives.get(task)

    def _make(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        life = self._beginning or self.current()
        if life is None:
            return asyncio.Task(coro, loop=loop, **options)
        life.left_behind[coro] = None
        task = asyncio.Task(_live(coro, life), loop=loop, **options)
        self._lives[task] = life
        return task


async def _live(coro: Coroutine[Any, Any, Any], life: Life) -> Any:
    try:
        return await _resumed_while_alive(coro, life)
    finally:
        life.left_behind.pop(coro, None)


@types.coroutine
def _resumed_while_alive(coro: Any, life: Life) -> Generator[Any, Any, Any]:
    """`yield from coro`, but a dead process is never resumed, whatever is sent or thrown in."""
    resume, given = coro.send, None
    while True:
        try:
            awaited = resume(given)
        except StopIteration as end:
            return end.value
        try:
            given, resume = (yield awaited), coro.send
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - passed on to the coroutine, as `yield from` does
            given, resume = error, coro.throw
        if life.dead:
            yield from life.rest().__await__()

"""Answers that are ready at the same instant: who is heard first is somebody's choice."""

from __future__ import annotations

import asyncio
from typing import Protocol

from orchestrator.testing.choices import Topic
from orchestrator.testing.mortality import Life
from orchestrator.testing.virtual_time import VirtualLoop

_Held = tuple[Life, str, "asyncio.Future[None]"]


class Chooser(Protocol):
    """Says which way to go where there are several."""

    def pick(self, topic: Topic, ways: list[str]) -> int: ...


class Arrivals:
    """Holds answers that are ready at the same instant, and lets them go one by one."""

    def __init__(self, loop: VirtualLoop, chooser: Chooser) -> None:
        self._loop = loop
        self._chooser = chooser
        self._waiting: list[_Held] = []
        self._beginning: list[_Held] = []
        self._next: list[_Held] = []

    async def begin(self, life: Life, what: str) -> None:
        """Wait until all is quiet and all that began before is under way."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._beginning.append((life, what, turn))
        await turn

    async def pass_one_by_one(self, life: Life, what: str) -> None:
        """Wait until all is quiet and this one is chosen."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((life, what, turn))
        await turn

    def release(self) -> bool:
        """Let one go; False when none waits."""
        if self._release_beginning():
            return True
        self._waiting = _alive(self._waiting)
        if not self._waiting:
            return False
        ways = [f"{what} first" for _, what, _ in self._waiting]
        chosen = self._chooser.pick("order", ways) if len(ways) > 1 else 0
        self._waiting.pop(chosen)[2].set_result(None)
        return True

    def _release_beginning(self) -> bool:
        self._next = _alive(self._next)
        if not self._next:
            self._next, self._beginning = _alive(self._beginning), []
            names = ", ".join(what for _, what, _ in self._next)
            ways = ["in their order", f"the last of {names} began first"]
            if len(self._next) > 1 and self._chooser.pick("begin", ways):
                self._next.reverse()
        if not self._next:
            return False
        self._next.pop(0)[2].set_result(None)
        return True


def _alive(held: list[_Held]) -> list[_Held]:
    return [one for one in held if not (one[0].dead or one[2].done())]

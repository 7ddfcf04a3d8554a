"""Answers that are ready at the same instant: who is heard first is somebody's choice."""

from __future__ import annotations

import asyncio
from typing import Protocol

from orchestrator.testing.choices import Topic
from orchestrator.testing.mortality import Life
from orchestrator.testing.virtual_time import VirtualLoop


class Chooser(Protocol):
    """Says which way to go where there are several."""

    def pick(self, topic: Topic, ways: list[str]) -> int: ...


class Arrivals:
    """Holds answers that are ready at the same instant, and lets them go one by one."""

    def __init__(self, loop: VirtualLoop, chooser: Chooser) -> None:
        self._loop = loop
        self._chooser = chooser
        self._waiting: list[tuple[Life, str, asyncio.Future[None]]] = []

    async def pass_one_by_one(self, life: Life, what: str) -> None:
        """Wait until all is quiet and this one is chosen."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((life, what, turn))
        await turn

    def release(self) -> bool:
        """Let one go; False when none waits."""
        self._waiting = [w for w in self._waiting if not (w[0].dead or w[2].done())]
        if not self._waiting:
            return False
        ways = [f"{what} first" for _, what, _ in self._waiting]
        chosen = self._chooser.pick("order", ways) if len(ways) > 1 else 0
        self._waiting.pop(chosen)[2].set_result(None)
        return True

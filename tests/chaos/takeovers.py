"""How long the sagas of a worker that went stay alone, seen from the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg

from tests.chaos.journal import Journal

HELD = """
SELECT s.id::text AS id, s.epoch, s.claims FROM saga s JOIN worker w ON s.owner = w.id
WHERE w.label LIKE '%:' || $1::text AND w.retired_at IS NULL
"""
STILL = """
SELECT h.id FROM unnest($1::text[], $2::int[]) AS h (id, epoch)
JOIN saga s ON s.id = h.id::uuid
WHERE s.epoch <= h.epoch AND (s.owner IS NOT NULL OR s.due_at IS NOT NULL)
    AND s.status IN ('pending', 'running', 'waiting', 'compensating')
"""
LOOK_EVERY = 0.03
SUSPECT = 3
GIVE_UP = 60.0


@dataclass(frozen=True)
class Held:
    """A saga in the hands of a worker."""

    id: str
    epoch: int
    claims: int


@dataclass
class Takeovers:
    """Watches, one for each worker that went; what they saw is in the journal."""

    dsn: str
    nemesis: Journal
    others: Callable[[str], bool]
    """Whether anybody else is up and well, who could take over."""
    _watches: set[asyncio.Task[None]] = field(default_factory=set)

    async def held(self, pid: int) -> list[Held]:
        """What the worker of this process holds; nothing when nobody can tell."""
        try:
            connection = await asyncpg.connect(self.dsn, timeout=2, command_timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return []
        try:
            return [Held(*row) for row in await connection.fetch(HELD, str(pid))]
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return []
        finally:
            connection.terminate()

    def watch(self, cause: str, who: str, since: float, held: list[Held]) -> None:
        """See when each of *held* is taken over, counted from *since*.

        What was claimed in vain before is told apart: it may be what ends its workers, and waits.
        """
        for name, some in (
            (cause, [one for one in held if one.claims < SUSPECT]),
            (f"{cause}, claimed in vain before", [one for one in held if one.claims >= SUSPECT]),
        ):
            if some:
                task = asyncio.create_task(self._watch(name, who, since, some))
                self._watches.add(task)
                task.add_done_callback(self._watches.discard)

    async def _watch(self, cause: str, who: str, since: float, held: list[Held]) -> None:
        left = {one.id: one.epoch for one in held}
        sagas: list[str] = []
        seconds: list[float] = []
        clean = self.others(who)
        while left and time.time() - since < GIVE_UP:
            try:
                connection = await asyncpg.connect(self.dsn, timeout=2, command_timeout=2)
                try:
                    while left and time.time() - since < GIVE_UP:
                        rows = await connection.fetch(STILL, list(left), list(left.values()))
                        alone = {row["id"] for row in rows}
                        for saga_id in [one for one in left if one not in alone]:
                            del left[saga_id]
                            sagas.append(saga_id)
                            seconds.append(round(time.time() - since, 3))
                        clean = clean and self.others(who)
                        await asyncio.sleep(LOOK_EVERY)
                finally:
                    connection.terminate()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                clean = False
                await asyncio.sleep(0.2)
        self.nemesis.write(
            what="takeover", cause=cause, who=who, since=since, sagas=sagas, seconds=seconds, clean=clean,
            never=sorted(left),
        )  # fmt: skip

    async def settle(self) -> None:
        """Wait for all watches."""
        if self._watches:
            await asyncio.wait(self._watches)

"""One database of a test's own, with workers on it that live in this process, or die in theirs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import SecretStr

from orchestrator import Handle, Orchestrator, Saga, Status, WorkerSettings
from orchestrator.bootstrap import App, open_app, work
from orchestrator.catalogue import Catalogue
from orchestrator.settings import Settings
from tests.crash.doomed_worker import Job
from tests.crash.field_hospital import QUICK, Process, process, until
from tests.runtime.scenes import LEDGER, Diary, Scene

MODULE = "tests.runtime.mortal_worker"


@dataclass(frozen=True)
class Stage:
    """A database, the user's connection to it, the diary, and an orchestrator without a worker."""

    dsn: str
    app: App
    side: asyncpg.Connection[asyncpg.Record]
    journal: Path

    @property
    def diary(self) -> Diary:
        return Diary(Path(f"{self.journal}.diary"))

    @property
    def orchestrator(self) -> Orchestrator:
        """It knows no saga, as `saga` on the command line may not."""
        return self.app.orchestrator

    async def start(
        self, scene: Scene | Saga[Any, Any], value: Any = 1, **more: Any
    ) -> Handle[Any]:
        """Begin one instance."""
        saga = scene.saga if isinstance(scene, Scene) else scene
        return await self.orchestrator.start(saga, value, **more)

    async def start_all(self, name: str, numbers: Iterable[int]) -> list[Handle[Any]]:
        """Begin an instance of each number."""
        return [await self.start(Scene(name, number)) for number in numbers]

    @asynccontextmanager
    async def worker(
        self, *sagas: Scene | Saga[Any, Any], settings: Mapping[str, Any] = QUICK, **more: Any
    ) -> AsyncIterator[Orchestrator]:
        """A worker in this process, on connections of its own."""
        known = [saga.saga if isinstance(saga, Scene) else saga for saga in sagas]
        resources = {Diary: self.diary}
        async with work(
            known, resources, database_url=self.dsn, settings=WorkerSettings(**settings, **more)
        ) as orchestrator:
            yield orchestrator

    def job(self, *scenes: Scene, **more: Any) -> Job:
        """What a worker process is to do."""
        more.setdefault("settings", QUICK)
        names = [(scene.name, scene.number) for scene in scenes]
        return Job(self.dsn, str(self.journal), names, **more)

    def process(self, *scenes: Scene, **more: Any) -> AbstractAsyncContextManager[Process]:
        """A worker in a process of its own."""
        return process(MODULE, self.job(*scenes, **more).line())

    async def ledger(self) -> Mapping[tuple[str, str], int]:
        """How often each entry stands in the user's table."""
        rows = await self.side.fetch("SELECT saga, what, count(*) FROM ledger GROUP BY 1, 2")
        return {(row["saga"], row["what"]): row["count"] for row in rows}

    async def stands(self, handle: Handle[Any], wanted: Status) -> None:
        """Wait until an instance has a status."""

        async def holds() -> bool:
            return await handle.status() is wanted

        await until(holds, f"{wanted} of {handle.saga_id}")

    async def has(self, handle: Handle[Any], type_: str, count: int = 1) -> None:
        """Wait until an instance's log holds events of a type."""

        async def holds() -> bool:
            return (await types(handle))[type_] >= count

        await until(holds, f"{type_} of {handle.saga_id}")

    async def done(self, what: str, count: int = 1) -> None:
        """Wait until the diary says that *what* was done."""

        async def holds() -> bool:
            return sum(line["what"] == what for line in self.diary.lines()) >= count

        await until(holds, f"{what} in the diary")


async def types(handle: Handle[Any]) -> Counter[str]:
    """How many events of each type an instance has."""
    return Counter([entry.type async for entry in handle.history()])


def kinds(journal: Path) -> Counter[str]:
    """How often workers came by each point at which they may die."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(json.loads(line)["kind"] for line in lines)


@asynccontextmanager
async def stage(dsn: str, path: Path) -> AsyncIterator[Stage]:
    """The database at *dsn*, with the user's own table in it."""
    settings = Settings(database_url=SecretStr(dsn))
    async with open_app(settings, Catalogue(())) as app:
        side = await asyncpg.connect(dsn)
        try:
            await side.execute(LEDGER)
            yield Stage(dsn, app, side, path / "journal.jsonl")
        finally:
            await side.close()

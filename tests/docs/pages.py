"""The pages of the documentation as a test reads them: blocks, tables, links, and runnable examples."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator import Orchestrator, Saga, Signal, Worker, WorkerSettings
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory.store import MemoryDatabase
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.domain.events import ENDED, Status
from orchestrator.ports import Store

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PRIMITIVES = DOCS / "primitives"

LIMIT = 60.0
NEVER = 1e9
"""Seconds: a lease that outlives every jump of the clock."""

Signals = Sequence[tuple[Signal[Any], Any]]


@dataclass(frozen=True)
class Page:
    """One page of the documentation."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @property
    def heading(self) -> str:
        return self.text.partition("\n")[0]

    def blocks(self, language: str | None = None) -> list[str]:
        """The fenced blocks, all of them or those of one language."""
        found = re.findall(r"^```(\w*)\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)
        return [body for kind, body in found if language in (None, kind)]

    def section(self, title: str) -> str:
        """What stands below a heading of the second level; empty when there is none."""
        match = re.search(
            rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", self.text, re.DOTALL | re.MULTILINE
        )
        return match[1] if match else ""

    def rows(self, title: str) -> list[list[str]]:
        """The rows of the tables in a section, without their heads."""
        lines = [line for line in self.section(title).splitlines() if line.startswith("|")]
        cells = [
            [cell.replace(r"\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in lines
        ]
        rules = [n for n, row in enumerate(cells) if set("".join(row)) <= set("- :")]
        heads = {n - 1 for n in rules}
        return [row for n, row in enumerate(cells) if n not in heads and n not in rules]

    @property
    def links(self) -> list[str]:
        """The targets of relative links, without their anchors."""
        prose = re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)
        found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose)
        return [target for target in found if "://" not in target]


def pages_of_primitives() -> list[Page]:
    return [Page(path) for path in sorted(PRIMITIVES.glob("*.md")) if path.stem != "README"]


@dataclass(frozen=True)
class Run:
    """One run that an example promises: its input, what it is sent, and how it ends."""

    input: Any
    status: str
    signals: Signals = ()


@dataclass(frozen=True)
class Example:
    """The program of a page: a saga, runs of it, and the fakes that its steps use."""

    module: ModuleType

    @property
    def saga(self) -> Saga[Any, Any]:
        found: Saga[Any, Any] = self.module.saga
        return found

    @property
    def runs(self) -> list[Run]:
        given = self.module.example
        return (
            [Run(*one) for one in given] if isinstance(given, list) else [Run(given, "completed")]
        )

    @property
    def resources(self) -> dict[type, Any]:
        return copy.deepcopy(getattr(self.module, "resources", {}))


def written(page: Page, folder: Path) -> Path:
    """The page's one program as a module of its own."""
    [source] = page.blocks("python")
    file = folder / f"docs_{page.name.replace('-', '_')}.py"
    file.write_text(source, "utf-8")
    return file


@contextmanager
def loaded(page: Page, folder: Path) -> Iterator[Example]:
    """The page's program, written to a file and imported as any other module."""
    file = written(page, folder)
    name = file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield Example(module)
    finally:
        del sys.modules[name]


class ClockAhead:
    """The time of this machine, moved ahead whenever nothing but time is waited for."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def jump(self, to: datetime) -> None:
        self.ahead += max(to - self.now(), timedelta(0))


@dataclass(frozen=True)
class Came:
    """What came of a run: its status, and the types of all events, its children's included."""

    status: Status
    events: list[str]


async def come(
    store: Store,
    clock: ClockAhead | None,
    example: Example,
    run: Run,
    resources: Mapping[type, Any],
) -> Came:
    """Start an instance, and let a real worker carry it to its end; what sleeps is not waited for."""
    codec, telemetry = JsonCodec(), SilentTelemetry()
    settings = WorkerSettings(poll_every=0.01, park_after=0.0, ttl=NEVER)
    worker = Worker(store, codec, telemetry, [example.saga], resources, settings)
    service = Orchestrator(store, codec, telemetry, [example.saga])
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        handle = await service.start(example.saga, run.input)
        for signal, payload in run.signals:
            await handle.signal(signal, payload)
        async with asyncio.timeout(LIMIT):
            while (status := await handle.status()) not in {*ENDED, Status.STUCK}:
                await _pass_time(service, clock)
        events = [
            entry.type
            for instance in await service.search()
            async for entry in service.history(instance.saga_id)
        ]
        return Came(status, events)
    finally:
        stop.set()
        await task
        await service.close()


async def _pass_time(service: Orchestrator, clock: ClockAhead | None) -> None:
    live = [one for one in await service.search() if one.status not in ENDED]
    if clock is not None and live and all(one.owner is None for one in live):
        due = [one.due_at for one in live if one.due_at is not None]
        if due:
            clock.jump(min(due))
    await asyncio.sleep(0.005)


async def come_in_memory(example: Example, run: Run) -> Came:
    """As `come`, on a store in memory of the run's own."""
    clock = ClockAhead()
    store = MemoryDatabase(clock).store()
    return await come(store, clock, example, run, example.resources)

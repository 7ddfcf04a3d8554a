"""A worker process that ends, or stops, itself at a chosen point; and a nursery that forks many.

`python -m tests.crash.doomed_worker` reads lists of jobs from its input, one a line, forks a worker
for each job, and answers each line with how they ended. With a job as its argument it is the worker.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from orchestrator import Worker, WorkerSettings
from orchestrator.bootstrap import App, open_app
from orchestrator.catalogue import Catalogue
from orchestrator.ports import Append, Claim, Definition, EventRow, EventStore, Owned, WorkQueue
from orchestrator.settings import Settings
from sagas.resources import resources
from tests.crash.scenarios import saga

log = logging.getLogger(__name__)

AT_ONCE = 4

KINDS = (
    "claim-after",
    "append-before",
    "append-during",
    "append-after",
    "effect-before",
    "effect-after",
)
"""Where a fuse can sit: between a claim and the first work; before an append is sent, while its
answer is awaited, after it is durable; before and after a participant applied an effect."""


@dataclass(frozen=True)
class Job:
    """What one worker process is to do. Without `until` it works until SIGTERM."""

    dsn: str
    journal: str
    definitions: Sequence[tuple[str, int]]
    until: Sequence[str] = ()
    kind: str = ""
    count: int = 0
    signal: int = signal.SIGKILL
    pause: float = 0.0
    settings: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> str:
        return json.dumps(asdict(self))


Work = Callable[[Job], Coroutine[Any, Any, None]]
"""What a worker process does about its job."""


class Journal:
    """What the worker did, a line for each point it came by; it survives the worker."""

    def __init__(self, job: Job) -> None:
        self._file = os.open(job.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._kind, self._left, self._signal = job.kind, job.count, job.signal

    def note(self, kind: str, key: str = "", call: str = "") -> None:
        """Write it down, and burn the fuse if it sits here."""
        line = {"at": time.monotonic(), "pid": os.getpid(), "kind": kind, "key": key, "call": call}
        os.write(self._file, json.dumps(line).encode() + b"\n")
        if kind == self._kind:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._signal)


class DoomedEvents:
    """The event store, watched."""

    def __init__(self, events: EventStore, journal: Journal) -> None:
        self._events = events
        self._journal = journal

    async def append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        self._journal.note("append-before")
        answer = asyncio.create_task(self._append(batch))
        # A few turns of the loop: enough for the bytes to leave, too few for the answer to come.
        for _ in range(5):
            await asyncio.sleep(0)
        self._journal.note("append-during")
        written = await answer
        self._journal.note("append-after")
        return written

    async def _append(self, batch: Sequence[Append]) -> Mapping[str, int]:
        return await self._events.append(batch)

    async def read(self, saga_id: str, after: int = 0) -> list[EventRow]:
        return await self._events.read(saga_id, after)


class DoomedQueue:
    """The work queue, watched."""

    def __init__(self, queue: WorkQueue, journal: Journal) -> None:
        self._queue = queue
        self._journal = journal

    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        claims = await self._queue.claim(owner, limit, definitions)
        if claims:
            self._journal.note("claim-after")
        return claims

    async def reclaim(
        self, owner: str, saga_id: str, epoch: int, *, counts: bool = True
    ) -> Claim | None:
        return await self._queue.reclaim(owner, saga_id, epoch, counts=counts)

    async def release(
        self,
        owner: str,
        saga_ids: Sequence[str],
        delay: timedelta = timedelta(0),
        *,
        untouched: bool = False,
    ) -> None:
        await self._queue.release(owner, saga_ids, delay, untouched=untouched)

    async def owned(self, owner: str) -> list[Owned]:
        return await self._queue.owned(owner)


class DoomedParticipant:
    """A participant, watched: what is called with `key=` does, all else undoes."""

    def __init__(self, participant: object, journal: Journal, pause: float) -> None:
        self._participant = participant
        self._journal = journal
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._participant, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            does = "key" in kwargs
            key, what = (kwargs["key"], "do") if does else (args[0], "undo")
            await asyncio.sleep(self._pause)
            self._journal.note("effect-before", key, what)
            result = await method(*args, **kwargs)
            self._journal.note("effect-after", key, what)
            await asyncio.sleep(self._pause)
            return result

        return call


@asynccontextmanager
async def doomed(job: Job, journal: Journal) -> AsyncIterator[tuple[App, Worker]]:
    """A worker as bootstrap makes it, but with store and participants watched."""
    sagas = tuple(saga(scenario, number) for scenario, number in job.definitions)
    settings = Settings(database_url=SecretStr(job.dsn))
    async with (
        open_app(settings, Catalogue(sagas)) as app,
        resources(job.dsn, connections=4) as participants,
    ):
        store = replace(
            app.store,
            events=DoomedEvents(app.store.events, journal),
            queue=DoomedQueue(app.store.queue, journal),
        )
        watched = {
            kind: DoomedParticipant(participant, journal, job.pause)
            for kind, participant in participants.items()
        }
        yield (
            app,
            Worker(
                store,
                app.orchestrator.codec,
                app.telemetry,
                sagas,
                watched,
                WorkerSettings(**dict(job.settings)),  # type: ignore[arg-type]  # from JSON
            ),
        )


async def work(job: Job) -> None:
    """Be the worker until the instances of the job have ended, or until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with doomed(job, Journal(job)) as (app, worker):
        working = asyncio.create_task(worker.run(stop))
        ends = [asyncio.create_task(app.orchestrator.wait(saga_id)) for saga_id in job.until]
        if ends:
            every = asyncio.gather(*ends)
            first: set[asyncio.Future[Any]] = {working, every}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            every.cancel()
            stop.set()
        await working


def main(work: Work = work) -> None:
    """Be the worker of one job, or the nursery of many."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    die_with_parent()
    if len(sys.argv) > 1:
        asyncio.run(work(Job(**json.loads(sys.argv[1]))))
        return
    for line in sys.stdin:
        ends = run_all([Job(**job) for job in json.loads(line)], work)
        sys.stdout.write(json.dumps(ends) + "\n")
        sys.stdout.flush()


def run_all(jobs: Sequence[Job], work: Work) -> list[int]:
    """Fork a worker for each job, a few at a time; how each of them ended."""
    running: dict[int, int] = {}
    ends = [0] * len(jobs)

    def reap() -> None:
        pid, status = os.wait()
        ends[running.pop(pid)] = os.waitstatus_to_exitcode(status)

    for number, job in enumerate(jobs):
        if len(running) == AT_ONCE:
            reap()
        running[fork(job, work)] = number
    while running:
        reap()
    return ends


def fork(job: Job, work: Work) -> int:
    """Start a worker from this process, which has everything imported and no thread."""
    if pid := os.fork():
        return pid
    die_with_parent()
    try:
        asyncio.run(work(job))
        os._exit(0)
    except BaseException:
        log.exception("a worker of the nursery failed")
        os._exit(1)


def die_with_parent() -> None:
    """Leave nothing behind when a test is cut off."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    main()

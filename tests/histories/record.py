"""Record the runs that are missing: `python -m tests.histories.record [NAME ...]`.

What was recorded once is never recorded again by itself: it stands for the instances that people
have in their databases.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator import Orchestrator, Saga, Status, Worker
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import MemoryDatabase
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import EventRow
from orchestrator.testing import Simulator
from sagas.participants.seed import seed
from sagas.resources import open_pool, resources
from tests.crash.scenarios import CATALOGUE
from tests.histories.far import FAR
from tests.histories.flows import World, sagas, verdict
from tests.histories.ready import RUNS, SIMULATED
from tests.sagas.fakes import fakes
from tests.sagas.test_crash_points import INPUTS, SIGNALS
from tests.servers import fast_server

HERE = Path(__file__).parent
SIGNALLED = ("signal", "flow")


async def recorded(
    saga: Saga[Any, Any], input: object, resources: Mapping[type, object]
) -> dict[str, Any]:
    """One run of *saga* by the real engine, over the memory store."""
    store = MemoryDatabase().store()
    codec, telemetry = JsonCodec(), SilentTelemetry()
    worker = Worker(store, codec, telemetry, [saga], resources)
    service = Orchestrator(store, codec, telemetry, [saga])
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        handle = await service.start(saga, input)
        if saga.name in SIGNALLED:
            await handle.signal(verdict, 41, actor="ann")
        status = await service.wait(handle.saga_id, 30)
        rows = await store.events.read(handle.saga_id)
    finally:
        stop.set()
        await task
        await service.close()
    return {"saga": saga.name, "status": str(status), "events": [_written(row) for row in rows]}


def simulated(saga: Saga[Any, Any]) -> dict[str, Any]:
    """One run of *saga* on virtual time, with fakes in place of its participants."""
    with Simulator(resources=fakes()) as sim:
        instance = sim.start(saga, INPUTS[saga.name])
        for signal, payload in SIGNALS.get(saga.name, ()):
            instance.signal(signal, payload)
        status = instance.finish().status
        rows = sim.act(sim.orchestrator.store.events.read(instance.saga_id))
    return {"saga": saga.name, "status": status, "events": [_written(row) for row in rows]}


def far(saga: Saga[Any, Any], input: object, play: Callable[[Simulator], None]) -> dict[str, Any]:
    """One run of *saga* on virtual time, with participants that play so."""
    with Simulator() as sim:
        play(sim)
        instance = sim.start(saga, input)
        status = instance.finish().status
        rows = sim.act(sim.orchestrator.store.events.read(instance.saga_id))
    return {"saga": saga.name, "status": status, "events": [_written(row) for row in rows]}


def _written(row: EventRow) -> dict[str, Any]:
    return {
        "type": row.type, "node": row.node, "attempt": row.attempt, "data": row.data,
        "recorded_at": row.recorded_at.isoformat(), "saga_id": row.saga_id,
    }  # fmt: skip


async def main(names: list[str]) -> None:
    for name, saga in sagas().items():
        if _wanted(name, names):
            _keep(name, await recorded(saga, 0, {World: World()}))
    for name, saga in SIMULATED.items():
        if _wanted(name, names):
            _keep(name, simulated(saga))
    for name, (saga, value, play) in FAR.items():
        if _wanted(name, names):
            _keep(name, far(saga, value, play))
    if not any(_wanted(name, names) for name in RUNS):
        return
    # Participants are real: they keep their books in a database of their own.
    with fast_server() as server:
        dsn = server.dsn("postgres")
        async with resources(dsn) as participants, open_pool(dsn) as pool:
            await seed(pool, CATALOGUE)
            for name, (saga, value) in RUNS.items():
                if _wanted(name, names):
                    _keep(name, await recorded(saga, value, participants))


def _wanted(name: str, names: list[str]) -> bool:
    return name in names or (not names and not (HERE / f"{name}.json").exists())


def _keep(name: str, found: dict[str, Any]) -> None:
    assert Status(found["status"]) is not Status.RUNNING
    (HERE / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(name, found["status"], len(found["events"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

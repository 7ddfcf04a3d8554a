"""Everything a chaos run needs, up for as long as a block lasts: servers, wires, processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.brokers import _die_with_parent
from tests.chaos.crew import ROOT, Crew, Member
from tests.chaos.journal import Journal
from tests.chaos.kafka import Broker, LentBroker, kafka
from tests.chaos.ledger_client import Ledger
from tests.chaos.sizes import Size
from tests.chaos.takeovers import Takeovers
from tests.faults.wire_proxy import WireProxy
from tests.servers import DurableServer, migrate, open_dir

TOPIC = "chaos.events"
WORKERS, RELAYS = 4, 2


@dataclass
class Scene:
    """What the phases and the nemesis act on."""

    size: Size
    seed: int
    folder: Path
    postgres: DurableServer
    broker: Broker | LentBroker
    wires: dict[str, WireProxy]
    ledger: Ledger
    ledger_port: int
    crew: Crew
    takeovers: Takeovers
    nemesis: Journal
    load: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The database itself, past all wires."""
        return self.postgres.dsn

    def begin_load(self) -> None:
        """Start the API process."""
        job = {
            "dsn": self.wires["api"].dsn, "ledger": self.ledger_port, "folder": str(self.folder),
            "seed": self.seed, "rate": self.size.rate, "poison_every": self.size.poison_every,
            "poison_from": int(self.size.rate * (self.size.warm_up + 1)),
        }  # fmt: skip
        self.load = _spawn(["-m", "tests.chaos.load", json.dumps(job)], self.folder / "load.log")

    async def end_load(self) -> int:
        """No new sagas; wait until everything that was asked has an answer."""
        assert self.load is not None
        self.load.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.load.wait, 150)

    async def ask(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """A query past all wires."""
        connection = await asyncpg.connect(self.dsn, timeout=5, command_timeout=10)
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def open_scene(size: Size, seed: int, folder: Path) -> AsyncIterator[Scene]:
    """Set up, and leave nothing behind."""
    async with contextlib.AsyncExitStack() as stack:
        nemesis = Journal(folder / "nemesis.jsonl")
        stack.callback(nemesis.close)
        broker = stack.enter_context(kafka(folder / "kafka"))
        postgres = DurableServer(stack.enter_context(open_dir(durable=True)))
        stack.callback(postgres.stop)
        await asyncio.to_thread(migrate, postgres.dsn)
        names = [*(f"worker{n}" for n in range(WORKERS)), *(f"relay{n}" for n in range(RELAYS))]
        wires: dict[str, WireProxy] = {}
        for name in [*names, "api"]:
            wires[name] = WireProxy(postgres.dsn)
            await wires[name].start()
            stack.push_async_callback(wires[name].stop)
        process = _spawn(
            ["-m", "tests.chaos.ledger", str(folder)], folder / "ledger.log", pipe=True
        )
        stack.callback(_end, process)
        assert process.stdout is not None
        port = int(await asyncio.to_thread(process.stdout.readline))
        ledger = Ledger(port)
        takeovers = Takeovers(postgres.dsn, nemesis, lambda who: _others(crew, who))

        async def on_start(member: Member) -> None:
            if member.name.startswith("worker"):
                await ledger.say({"do": "employ", "pid": member.pid})

        async def on_death(member: Member, pid: int, at: float) -> None:
            await ledger.say({"do": "dismiss", "pid": pid})
            if member.name.startswith("worker"):
                takeovers.watch("kill", member.name, at, await takeovers.held(pid))

        crew = Crew(folder, nemesis, on_start, on_death)
        stack.callback(crew.close)
        scene = Scene(
            size, seed, folder, postgres, broker, wires, ledger, port, crew, takeovers, nemesis
        )
        if isinstance(broker, Broker):
            await asyncio.to_thread(broker.await_answer)
        for name in names:
            await crew.hire(name, *_role(scene, name))
        stack.callback(lambda: _end(scene.load))
        watch = asyncio.create_task(crew.watch(), name="crew")
        stack.push_async_callback(_cancel, watch)
        yield scene


def _others(crew: Crew, who: str) -> bool:
    return any(
        member.ready and not member.troubled and not member.leaving
        for member in crew.find("worker")
        if member.name != who
    )


def _role(scene: Scene, name: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of one member of the crew."""
    environment = {
        "SAGA_DATABASE_URL": scene.wires[name].dsn,
        "SAGA_KAFKA_BOOTSTRAP_SERVERS": scene.broker.servers,
        "SAGA_KAFKA_TOPIC": TOPIC,
        "SAGA_LEASE_TTL": str(scene.size.ttl),
        "SAGA_GRACE": str(scene.size.drain),
        "CHAOS_LEDGER_PORT": str(scene.ledger_port),
    }
    if name.startswith("relay"):
        return ["relay", "--json"], environment
    return ["worker", "--sagas", "tests.chaos.flows", "--json"], environment


def _spawn(command: list[str], log: Path, *, pipe: bool = False) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ.copy(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipe else out,
            stderr=out,
            preexec_fn=_die_with_parent,
        )


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.kill()
        process.wait(10)
    if process is not None and process.stdout is not None:
        process.stdout.close()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def until(holds: object, within: float, what: str) -> float:
    """Ask the async function *holds* again and again; how long it took. AssertionError if too long."""
    assert callable(holds)
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if await holds():
                return time.monotonic() - began
        if time.monotonic() - began > within:
            raise AssertionError(f"{what}: not within {within:g} s")
        await asyncio.sleep(0.2)

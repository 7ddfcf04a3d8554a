"""An older copy of the database is brought back: the tail is lost, nothing else is, and it is said."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator import NotFoundError, Saga, Signal, Status, WorkflowContext, step
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.bootstrap import open_app, work
from orchestrator.catalogue import Catalogue
from orchestrator.domain.shards import shard_name
from orchestrator.runtime.relay import Relay, RelaySettings
from orchestrator.settings import Settings
from tests.crash.field_hospital import until
from tests.runtime.test_relay import Broker
from tests.servers import DurableServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


@step
async def add(n: int, ctx: WorkflowContext) -> int:
    return n + 1


go = Signal("go", int)
flow = Saga("flow", version=1, body=add >> go.wait() >> add.named("add_again"))
SHARD = shard_name("events", 0)
RELAY = RelaySettings(
    poll_every=0.02, idle_poll_every=0.1, backoff=0.05, backoff_limit=0.2, ttl=15, shards=1
)


def copied(server: DurableServer, to: Path) -> None:
    """The data as they are now, stopped and started for it."""
    server.stop()
    shutil.copytree(server._cluster.data, to, copy_function=shutil.copy2)
    server.start()


def brought_back(server: DurableServer, copy: Path) -> None:
    """What was copied instead of what is there."""
    server.stop()
    data = server._cluster.data
    owner = data.stat()
    shutil.rmtree(data)
    shutil.copytree(copy, data, copy_function=shutil.copy2)
    for path in (data, *data.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    data.chmod(0o700)
    server.start()


async def test_an_older_copy_lacks_the_tail_and_a_running_relay_says_so(
    durable_pg: DurableServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    broker = Broker()
    settings = Settings(database_url=SecretStr(durable_pg.dsn))
    async with (
        open_app(settings, Catalogue((flow,))) as app,
        Relay(app.store.feed, app.store.hints, lambda _: broker.open(), SilentTelemetry(), RELAY),
    ):
        async with work([flow], database_url=durable_pg.dsn):
            early = await app.orchestrator.start(flow, 1)

            async def waits() -> bool:
                return await early.status() is Status.WAITING

            await until(waits, "a signal to be waited for")
        await asyncio.to_thread(copied, durable_pg, tmp_path / "copy")
        async with work([flow], database_url=durable_pg.dsn):
            late = await app.orchestrator.start(flow, 10)
            await late.signal(go, 20)
            await early.signal(go, 2)
            assert await late.result(within=20) == 21
            assert await early.result(within=20) == 3

        async def published() -> bool:
            return await app.store.feed.lag(SHARD) == 0

        await until(published, "everything published")
        sent = len(broker.versions(early.saga_id)), len(broker.versions(late.saga_id))

        await asyncio.to_thread(brought_back, durable_pg, tmp_path / "copy")

        async def said() -> bool:
            return "an older state of the database was brought back" in caplog.text

        await until(said, "a word of the relay")
        # Lost is lost: nobody pretends that it is there. What is there is whole, and goes on.
        with pytest.raises(NotFoundError):
            await app.orchestrator.get(late.saga_id)
        assert await app.orchestrator.verify(early.saga_id) < sent[0]
        async with work([flow], database_url=durable_pg.dsn):
            await early.signal(go, 5)
            assert await early.result(within=20) == 6
        assert await app.orchestrator.verify(early.saga_id) >= sent[0]
        # Other events stand under the same versions now: none of them was published in silence.
        assert len(broker.versions(early.saga_id)) == sent[0]
        epochs = [entry.row.epoch async for entry in early.history()]
        assert epochs == sorted(epochs)
    # Who starts a relay anew has decided; it goes on from the checkpoint that there is.
    settings = Settings(database_url=SecretStr(durable_pg.dsn))
    async with (
        open_app(settings, Catalogue((flow,))) as app,
        Relay(app.store.feed, app.store.hints, lambda _: broker.open(), SilentTelemetry(), RELAY),
    ):

        async def caught_up() -> bool:
            return await app.store.feed.lag(SHARD) == 0

        await until(caught_up, "everything published")
    assert len(broker.versions(early.saga_id)) > sent[0]

"""Transaction numbers come to the end of their 32 bits and begin again: nothing of ours depends on them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from orchestrator import Saga, Status, WorkflowContext, step
from orchestrator.adapters.embedded_cluster import EmbeddedPostgres
from orchestrator.adapters.embedded_programs import environment, server_account
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.bootstrap import open_app, work
from orchestrator.catalogue import Catalogue
from orchestrator.runtime.relay import Relay, RelaySettings
from orchestrator.settings import Settings
from tests.crash.field_hospital import until
from tests.runtime.test_relay import Broker
from tests.servers import FAST_UNSAFE, migrate, open_dir

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

END = 2**32
LEFT = 150
"""Transactions until the numbers begin again."""
SEGMENT = 2**20
"""Transactions in one file of pg_xact."""


@step
async def add(n: int, ctx: WorkflowContext) -> int:
    return n + 1


flow = Saga("flow", version=1, body=add >> add.named("add_again"))


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A migrated server that is about to run out of transaction numbers."""
    with open_dir() as path:
        cluster = EmbeddedPostgres(path / "state", user="postgres", settings=FAST_UNSAFE)
        with cluster:
            migrate(cluster.dsn())
            programs = Path(f"/proc/{cluster.pid}/exe").resolve().parent
            for name in ("postgres", "template1"):
                with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
                    connection.execute("VACUUM FREEZE")
        _near_the_end(cluster.data, programs / "pg_resetwal")
        with cluster:
            yield cluster


def _near_the_end(data: Path, program: Path) -> None:
    account = server_account()
    new = END - LEFT
    done = subprocess.run(
        [program, "-x", str(new), "-u", str(new - 1000), "-D", data], env=environment(),
        user=account.uid, group=account.gid, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file = data / "pg_xact" / f"{new // SEGMENT:04X}"
    if not file.exists():
        file.write_bytes(bytes(256 * 1024))
        owner = data.stat()
        shutil.chown(file, owner.st_uid, owner.st_gid)


async def test_sagas_and_feed_go_on_when_transaction_numbers_begin_again(
    server: EmbeddedPostgres,
) -> None:
    settings = Settings(database_url=SecretStr(server.dsn()))
    broker = Broker()
    async with (
        open_app(settings, Catalogue((flow,))) as app,
        Relay(
            app.store.feed,
            app.store.hints,
            lambda _: broker.open(),
            SilentTelemetry(),
            RelaySettings(),
        ),
        work([flow], database_url=server.dsn()),
    ):
        before = await asyncio.to_thread(_next, server.dsn())
        assert END - LEFT <= before < END
        handles = []
        for n in range(LEFT):
            handles.append(await app.orchestrator.start(flow, n))
            assert await handles[-1].result(within=20) == n + 2
        after = await asyncio.to_thread(_next, server.dsn())
        assert after > END, "the numbers never began again"

        async def published() -> bool:
            return await app.store.feed.lag("events") == 0

        await until(published, "everything published")
        for handle in handles:
            assert await handle.status() is Status.COMPLETED
            length = await app.orchestrator.verify(handle.saga_id)
            assert broker.versions(handle.saga_id) == list(range(1, length + 1))


def _next(dsn: str) -> int:
    """The next transaction's number in 64 bits."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])

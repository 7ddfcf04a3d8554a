"""`saga demo` as a stranger runs it: a process of its own, an empty home, a fresh database."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.servers import open_dir

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

ORDERS = 60


def packaged(name: str) -> str:
    return files("sagas.data").joinpath(name).read_text("utf-8")


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """The first orders of the package in a file of their own; some of them will be refused."""
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(packaged("orders.jsonl").splitlines(keepends=True)[:ORDERS]), "utf-8")
    return path


def reasons(path: Path) -> Counter[str]:
    """How many of the orders are refused for what, by the data."""
    refused: dict[str, str] = json.loads(packaged("expected.json"))["refused"]
    known = [json.loads(line)["order_id"] for line in path.read_text("utf-8").splitlines()]
    return Counter(refused[order_id] for order_id in known if order_id in refused)


@asynccontextmanager
async def demo(
    tmp_path: Path, *arguments: object, dsn: str = "", **variables: str
) -> AsyncIterator[Process]:
    """The command in an empty home; killed with the block if it has not ended."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], **variables}
    if dsn:
        environment["SAGA_DATABASE_URL"] = dsn
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", "demo", *map(str, arguments),
        env=environment, stdout=PIPE, stderr=PIPE, cwd=home,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def summary(
    tmp_path: Path, *arguments: object, dsn: str = "", exits: int = 0, **variables: str
) -> dict[str, Any]:
    """Run the demo to its end; its JSON object."""
    async with demo(tmp_path, "--json", *arguments, dsn=dsn, **variables) as process:
        out, log = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == exits, log.decode()
    found: dict[str, Any] = json.loads(out)
    return found


async def test_without_any_database_it_brings_its_own_and_every_claim_holds(
    tmp_path: Path, orders: Path
) -> None:
    with open_dir(durable=True) as state:
        found = await summary(
            tmp_path, "--orders", orders, "--seed", 7, SAGA_STATE_DIR=str(state / "saga")
        )
    expected = reasons(orders)
    assert found["ok"] is True
    assert found["orders"] == ORDERS
    assert found["compensated"] == expected.total()
    assert found["completed"] == ORDERS - expected.total()
    assert found["stuck"] == 0
    assert found["reasons"] == expected
    assert found["books"] == {"balanced": True, "problems": []}
    assert found["chains"]["sagas"] == ORDERS
    assert found["chains"]["events"] > 5 * ORDERS
    assert found["relay"] is None
    assert "embedded" in found["database"]


async def test_a_killed_worker_is_replaced_within_seconds(
    tmp_path: Path, orders: Path, dsn: str
) -> None:
    takeover = (await summary(tmp_path, "--orders", orders, dsn=dsn))["takeover"]
    assert takeover["orders"] > 0
    assert 0 < takeover["first_seconds"] <= takeover["last_seconds"] < 10
    epochs = await fetch(
        dsn, "SELECT epoch FROM event WHERE saga_id = $1 ORDER BY version", takeover["example"]
    )
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 1 or epochs[0] > 1


async def test_it_says_so_and_fails_when_the_books_were_cooked(
    tmp_path: Path, orders: Path, dsn: str
) -> None:
    run = (await summary(tmp_path, "--orders", orders, dsn=dsn))["run"]
    [order_id] = await fetch(
        dsn,
        "UPDATE participants.parcels_parcel SET state = 'undone' WHERE key = "
        "(SELECT min(key) FROM participants.parcels_parcel WHERE state = 'live') RETURNING order_id",
    )
    found = await summary(tmp_path, "--orders", orders, "--keep", dsn=dsn, exits=1)
    assert found["run"] == run
    assert found["ok"] is False
    assert found["books"]["problems"] == [f"{order_id} completed, but has no parcel"]


@pytest.mark.kafka
async def test_with_a_broker_every_event_is_published_too(
    tmp_path: Path, orders: Path, dsn: str, kafka: str
) -> None:
    topic = f"demo-{uuid.uuid4()}"
    found = await summary(
        tmp_path,
        "--orders",
        orders,
        dsn=dsn,
        SAGA_KAFKA_BOOTSTRAP_SERVERS=kafka,
        SAGA_KAFKA_TOPIC=topic,
    )
    assert found["relay"] == {
        "broker": kafka,
        "published": found["chains"]["events"],
        "lag": 0,
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends the children")
async def test_killed_itself_it_leaves_no_worker_and_keep_finishes_the_job(
    tmp_path: Path, orders: Path, dsn: str
) -> None:
    async with demo(tmp_path, "--json", "--orders", orders, dsn=dsn) as process:
        assert process.stderr is not None
        told = ""
        while "kill -9" not in told:
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, told
            told += line.decode()
        process.kill()
        await process.wait()
    pids = [int(pid) for pid in re.findall(r"is pid (\d+)", told)]
    assert len(pids) == 2
    await asyncio.wait_for(asyncio.gather(*map(gone, pids)), 10)
    found = await summary(tmp_path, "--orders", orders, "--keep", dsn=dsn)
    assert found["ok"] is True
    assert found["completed"] + found["compensated"] == ORDERS
    assert await fetch(dsn, "SELECT count(*) FROM saga") == [ORDERS]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no order"),
        ("{}\n", "line 1"),
        ("not json\n", "line 1"),
        (packaged("orders.jsonl").splitlines(keepends=True)[0] * 2, "line 2"),
    ],
)
async def test_orders_that_are_none_are_refused_by_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text(text, "utf-8")
    async with demo(tmp_path, "--orders", path) as process:
        out, log = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert complaint in (out + log).decode()
    assert "Traceback" not in (out + log).decode()


async def fetch(dsn: str, statement: str, *arguments: object) -> list[Any]:
    """The first column of what *statement* returns."""
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


def runs(pid: int) -> bool:
    """Whether the process is there and not a corpse that nobody has fetched yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    while runs(pid):
        await asyncio.sleep(0.05)

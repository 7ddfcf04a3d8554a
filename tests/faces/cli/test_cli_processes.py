"""The commands as processes: signals, pipes, a database that comes back, people's own sagas."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import psycopg
import pytest

from tests.faces.cli.prompt import ROOT, Prompt, environment, order, process, status_of, worker
from tests.servers import open_dir

pytestmark = pytest.mark.crash

TRIP = """
from orchestrator import Completed, Saga, WorkflowContext, step

@step
async def book(city: str, ctx: WorkflowContext) -> str:
    return f"flight to {city}"

@book.compensation
async def unbook(done: Completed[str, str], ctx: WorkflowContext) -> None: ...

trip = Saga("trip", version=1, body=book)
"""


def run(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=60,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_worker_says_what_it_does_in_json_lines_and_ends_well_on_sigterm(dsn: str) -> None:
    with worker(dsn, "--json") as running:
        running.until("(")  # joined
        began = time.monotonic()
        assert running.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5
    lines = [json.loads(line) for line in running.lines]
    said = " ".join(line["message"] for line in lines)
    assert "shop v1" in said
    assert urlsplit(dsn).hostname in said
    assert str(urlsplit(dsn).password) not in said


def test_a_second_signal_ends_a_worker_that_still_drains(saga: Prompt, dsn: str) -> None:
    with worker(dsn) as running:
        saga_id = saga("start", "slow", "--input", "1").out.strip()
        status_of(saga, saga_id, "running")
        running.process.send_signal(signal.SIGINT)
        running.until("hands over")
        assert running.end(signal.SIGINT) == 130


async def test_a_worker_waits_for_its_database_and_says_so_once(dsn: str) -> None:
    parts = urlsplit(dsn)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens yet
        there = f"{parts.username}:{parts.password}@127.0.0.1:{held.getsockname()[1]}"
        url = urlunsplit(parts._replace(netloc=there))
        with process("worker", SAGA_DATABASE_URL=url) as running:
            await asyncio.to_thread(running.until, "waits for the database")
            async with proxy(held, str(parts.hostname), int(parts.port or 0)):
                await asyncio.to_thread(running.until, "the database is back")
                await asyncio.to_thread(running.until, "works on")
                assert await asyncio.to_thread(running.end) == 0
    assert sum("waits for the database" in line for line in running.lines) == 1
    assert not any(str(parts.password) in line for line in running.lines)


@asynccontextmanager
async def proxy(listener: socket.socket, host: str, port: int) -> AsyncIterator[None]:
    """Hand all that comes to *listener* on to host and port, and back."""
    carried: set[asyncio.Task[None]] = set()

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_connection(host, port)
        for ends in ((reader, their_writer), (their_reader, writer)):
            carried.add(asyncio.create_task(carry(*ends)))

    async with await asyncio.start_server(accept, sock=listener):
        yield
        await asyncio.wait(carried, timeout=5)


def test_a_metrics_port_that_is_taken_is_said_and_the_worker_works(dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with worker(dsn, "--metrics-port", port) as running:
            running.until(f"port {port} cannot be used on 127.0.0.1")
            assert running.end() == 0


@pytest.mark.parametrize(
    ("flags", "variable", "everywhere"),
    [((), "", False), ((), "0.0.0.0", True), (("--metrics-host", "127.0.0.1"), "0.0.0.0", False)],
    ids=["unless told", "told by the environment", "told by a flag"],
)
def test_a_worker_serves_its_metrics_to_this_machine_unless_told_otherwise(
    flags: tuple[str, ...], variable: str, everywhere: bool, dsn: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    there = {"SAGA_METRICS_HOST": variable} if variable else {}
    arguments = ("worker", "--metrics-port", str(port), *flags)
    with process(*arguments, SAGA_DATABASE_URL=dsn, **there) as running:
        running.until("works on")
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"saga" in answer.read()
        # Another address of this machine is reached only by who listens on all of them.
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), 5):
            assert everywhere
            everywhere = False
        assert not everywhere
        assert running.end() == 0


def test_a_worker_tells_the_age_of_the_oldest_transaction(dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with psycopg.connect(dsn) as report:
        report.execute("CREATE TEMP TABLE held (n int)")
        report.execute("SELECT pg_sleep(0.5)")
        with worker(dsn, "--metrics-port", port) as running:
            running.until("works on")
            age, limit = 0.0, time.monotonic() + 10
            while age < 0.5 and time.monotonic() < limit:
                with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    found = re.search(
                        rb"^saga_oldest_transaction_seconds (\S+)", answer.read(), re.MULTILINE
                    )
                age = float(found[1]) if found else 0.0
            assert age >= 0.5
            assert running.end() == 0


def test_ctrl_c_ends_a_watch_without_a_word(dsn: str) -> None:
    with process("watch", stdout=subprocess.PIPE, SAGA_DATABASE_URL=dsn) as running:
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "[]\n"
        assert running.end(signal.SIGINT) == 130
    assert "Traceback" not in "".join(running.lines)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_reader_that_went_away_is_no_error_to_talk_about(
    saga: Prompt, dsn: str, flags: tuple[str, ...]
) -> None:
    saga("start", "slow", "--input", "1")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with process("list", *flags, stdout=writer, SAGA_DATABASE_URL=dsn) as running:
            assert running.process.wait(20) == 1
            running._reader.join(5)
    finally:
        os.close(writer)
    assert running.lines == []


def test_people_run_their_own_sagas_from_their_own_directory(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "travel.py").write_text(TRIP, "utf-8")
    told = run("graph", "trip", "--sagas", "travel", cwd=tmp_path)
    assert 'n1["book<br/>undo"]' in told.stdout
    with process("worker", "--sagas", "travel", cwd=tmp_path, SAGA_DATABASE_URL=dsn) as running:
        running.until("trip v1")
        started = run(
            "start", "trip", "--input", '"Rome"', "--within", 20,
            cwd=tmp_path, SAGA_DATABASE_URL=dsn, SAGA_SAGAS="travel",
        )  # fmt: skip
        assert (started.returncode, started.stdout) == (0, '"flight to Rome"\n'), started.stderr
        assert running.end() == 0


def test_up_brings_its_own_database_and_another_terminal_uses_it(state: str) -> None:
    with process("up", SAGA_STATE_DIR=state) as running:
        running.until("from another terminal: saga start shop")
        running.until("embedded PostgreSQL")
        running.until("no broker is configured")
        started = run(
            "start", "shop", "--input", order(), "--within", 20, cwd=ROOT, SAGA_STATE_DIR=state
        )
        assert started.stdout == '"paid 5 and sent"\n', started.stderr
        assert running.end() == 0


def test_the_doctor_says_that_an_embedded_database_is_for_trying(state: str) -> None:
    told = run("doctor", cwd=ROOT, SAGA_STATE_DIR=state)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "for trying" in told.stdout
    assert "✓ schema" in told.stdout


@pytest.fixture
def state() -> Iterator[str]:
    """A new state directory, where the embedded server may go."""
    with open_dir() as path:
        yield str(path / "state")

"""The wire proxy does what it says: what these tests trust, all tests of faults lean on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import asyncpg
import psycopg
import pytest

from tests.faults.wire_control import Control
from tests.faults.wire_proxy import FaultDidNotFireError, WireProxy

ADD = "INSERT INTO mark (n) VALUES ($1)"


@pytest.fixture
async def marks(dsn: str) -> asyncpg.Connection:
    """A connection beside the proxy, with a table to write to."""
    beside = await asyncpg.connect(dsn)
    await beside.execute("CREATE TABLE mark (n int)")
    yield beside
    await beside.close()


async def _count(beside: asyncpg.Connection) -> int:
    return await beside.fetchval("SELECT count(*) FROM mark")


async def _explicitly(client: asyncpg.Connection) -> None:
    async with client.transaction():
        await client.execute(ADD, 1)


async def _at_once(client: asyncpg.Connection) -> None:
    await client.execute(ADD, 1)


HOWS = pytest.mark.parametrize("write", [_at_once, _explicitly], ids=["one statement", "COMMIT"])


@HOWS
async def test_cut_before_a_commit_nothing_is_written(dsn, marks, write) -> None:
    async with WireProxy(dsn) as wire:
        client = await asyncpg.connect(wire.dsn)
        wire.cut_before_commit("INTO mark")
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await write(client)
        assert await _count(marks) == 0


@HOWS
async def test_cut_after_a_commit_it_is_written_and_the_client_sees_an_error(
    dsn, marks, write
) -> None:
    async with WireProxy(dsn) as wire:
        client = await asyncpg.connect(wire.dsn)
        wire.cut_after_commit("INTO mark")
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await write(client)
        assert await _count(marks) == 1


@HOWS
async def test_a_delayed_commit_arrives_after_its_client_gave_up(dsn, marks, write) -> None:
    async with WireProxy(dsn) as wire:
        client = await asyncpg.connect(wire.dsn)
        late = wire.delay_commit(0.4, "INTO mark")
        writing = asyncio.create_task(write(client))
        await late.first.wait()
        client.terminate()
        with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
            await writing
        assert await _count(marks) == 0
        async with asyncio.timeout(5):
            while await _count(marks) == 0:
                await asyncio.sleep(0.02)


async def test_dropped_replies_leave_the_request_in_force(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        client = await asyncpg.connect(wire.dsn, command_timeout=0.3)
        wire.drop_replies_of_commit("INTO mark")
        with pytest.raises(TimeoutError):
            await client.execute(ADD, 1)
        assert await _count(marks) == 1
        client.terminate()


async def test_a_black_hole_holds_back_and_delivers_when_healed(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        client = await asyncpg.connect(wire.dsn)
        hole = wire.black_hole()
        writing = asyncio.create_task(client.execute(ADD, 1))
        await hole.first.wait()
        assert not (await asyncio.wait({writing}, timeout=0.1))[0]
        assert await _count(marks) == 0
        hole.heal()
        await writing
        assert await _count(marks) == 1
        await client.close()


async def test_a_fault_is_about_the_session_that_it_names_and_about_no_other(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        named = {"application_name": "poor"}
        poor = await asyncpg.connect(wire.dsn, server_settings=named, command_timeout=0.3)
        other = await asyncpg.connect(wire.dsn)
        wire.cut_before_commit(session="^poor$", times=None)
        await other.execute(ADD, 1)
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await poor.execute(ADD, 2)
        assert await _count(marks) == 1
        await other.close()


async def test_skip_and_times_choose_which_commits_are_struck(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        fault = wire.cut_after_commit("INTO mark", skip=1, times=2)
        ends = []
        for n in range(5):
            client = await asyncpg.connect(wire.dsn)
            try:
                await client.execute(ADD, n)
                ends.append("ok")
                await client.close()
            except (asyncpg.PostgresError, OSError):
                ends.append("cut")
        assert ends == ["ok", "cut", "cut", "ok", "ok"]
        assert (fault.fired, await _count(marks)) == (2, 5)


async def test_a_refused_statement_is_no_commit(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        client = await asyncpg.connect(wire.dsn)
        fault = wire.cut_after_commit("INTO mark", must_fire=False)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await client.execute("INSERT INTO mark VALUES (1/0)")
        assert fault.fired == 0
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await client.execute(ADD, 1)
        assert (fault.fired, await _count(marks)) == (1, 1)


async def test_every_message_can_be_delayed_and_connections_refused(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        client = await asyncpg.connect(wire.dsn)
        slow = wire.delay(0.1)
        began = time.monotonic()
        await client.fetchval("SELECT 1")
        assert time.monotonic() - began >= 0.2
        slow.heal()
        wire.refuse()
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await asyncpg.connect(wire.dsn, timeout=2)
        await client.close()


async def test_a_connection_is_cut_after_the_nth_message(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        wire.cut_at_message(12)
        client = await asyncpg.connect(wire.dsn)
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await client.executemany("SELECT $1::int", [(n,) for n in range(12)])


async def test_libpq_is_understood_as_well(dsn, marks) -> None:
    async with WireProxy(dsn) as wire:
        wire.cut_after_commit("INTO mark")

        def write() -> None:
            with psycopg.connect(wire.dsn) as client:
                client.execute("INSERT INTO mark VALUES (%s)", (1,))

        with pytest.raises(psycopg.OperationalError):
            await asyncio.to_thread(write)
        assert await _count(marks) == 1


async def test_a_fault_that_never_struck_fails_its_test(dsn) -> None:
    with pytest.raises(FaultDidNotFireError, match="cut_before at commit 'nowhere'"):
        async with WireProxy(dsn) as wire:
            wire.cut_before_commit("nowhere")


def test_a_proxy_in_a_process_of_its_own_obeys_its_socket(dsn) -> None:
    with psycopg.connect(dsn, autocommit=True) as beside:
        beside.execute("CREATE TABLE mark (n int)")
        there = f"{beside.info.host}:{beside.info.port}"
        command = [sys.executable, "-m", "tests.faults.wire_proxy", "--to", there]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ports = json.loads(process.stdout.readline())
                through = dsn.replace(f":{beside.info.port}/", f":{ports['listen']}/")
                with Control(ports["control"]) as control:
                    number = control("cut_after_commit", matching="INTO mark", times=1)["id"]
                    with pytest.raises(psycopg.OperationalError):
                        psycopg.connect(through, autocommit=True).execute(
                            "INSERT INTO mark VALUES (1)"
                        )
                    assert control("fired", number)["fired"] == 1
                    assert control("report")["passed"]["commits"] == 1
                    with pytest.raises(AssertionError, match="there is no"):
                        control("make_coffee")
                    control("stop")
                assert process.wait(10) == 0
            finally:
                process.kill()
        assert beside.execute("SELECT count(*) FROM mark").fetchone() == (1,)


def test_a_signal_reaches_the_process_at_the_other_end_of_the_wire(dsn) -> None:
    code = "import psycopg, sys; psycopg.connect(sys.argv[1], autocommit=True).execute('CREATE TABLE t ()')"
    with psycopg.connect(dsn, autocommit=True) as beside:
        there = f"{beside.info.host}:{beside.info.port}"
        command = [sys.executable, "-m", "tests.faults.wire_proxy", "--to", there]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ports = json.loads(process.stdout.readline())
                through = dsn.replace(f":{beside.info.port}/", f":{ports['listen']}/")
                with Control(ports["control"]) as control:
                    control("send_signal", "KILL", "after", matching="CREATE TABLE")
                    ended = subprocess.run([sys.executable, "-c", code, through], check=False)
                    assert ended.returncode == -9
                    control("stop")
                assert process.wait(10) == 0
            finally:
                process.kill()
        assert beside.execute("SELECT to_regclass('t') IS NOT NULL").fetchone() == (True,)

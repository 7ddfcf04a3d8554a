"""Hints reach other processes, few and soon, and come back after a lost connection."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import psycopg
import pytest

from orchestrator.adapters.postgres.store import open_store
from orchestrator.ports import DUE, ENDS, Store
from tests.adapters.postgres.beside import Connection
from tests.contract.given import eventually

KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'saga hints'"
)


async def poked_until(poker: Store, channel: str, woken: asyncio.Event) -> None:
    """Poke again and again until somebody wakes: one hint may be lost, not all."""
    woken.clear()

    async def look() -> bool:
        poker.hints.poke(channel)
        return woken.is_set()

    await eventually(look)


async def test_a_hint_wakes_another_process_on_its_channel_only(store: Store, any_dsn: str) -> None:
    due, ends = asyncio.Event(), asyncio.Event()
    async with open_store(any_dsn) as other:
        other.hints.listen(DUE, due.set)
        other.hints.listen(ENDS, ends.set)
        await poked_until(store, DUE, due)
        await poked_until(store, ENDS, ends)
        await asyncio.sleep(0.1)
        due.clear()

        await poked_until(store, ENDS, ends)

    assert not due.is_set()


async def test_a_hint_wakes_its_own_process_at_once(store: Store) -> None:
    woken = asyncio.Event()
    store.hints.listen(DUE, woken.set)

    store.hints.poke(DUE)

    assert woken.is_set()


async def test_who_no_longer_listens_is_not_woken(store: Store) -> None:
    woken = asyncio.Event()
    end = store.hints.listen(DUE, woken.set)
    end()
    end()

    store.hints.poke(DUE)

    assert not woken.is_set()


async def test_many_pokes_become_few_notifications(store: Store, any_dsn: str) -> None:
    heard: list[str] = []
    listener = await asyncpg.connect(any_dsn)
    await listener.add_listener(DUE, lambda *args: heard.append(args[2]))
    woken = asyncio.Event()
    await listener.add_listener(DUE, lambda *_: woken.set())
    await poked_until(store, DUE, woken)
    await asyncio.sleep(0.1)
    heard.clear()
    began = asyncio.get_running_loop().time()

    for _ in range(500):
        store.hints.poke(DUE)
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)

    took = asyncio.get_running_loop().time() - began
    await listener.close()
    assert 1 <= len(heard) <= took / 0.005 + 2


async def test_an_outage_is_said_once_and_its_end_once(
    store: Store, side: Connection, any_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The database refuses new connections for as long as several tries of ours take."""
    caplog.set_level(logging.DEBUG, "orchestrator.adapters.postgres.hints")
    name = await side.fetchval("SELECT current_database()")
    woken = asyncio.Event()
    async with open_store(any_dsn) as other:
        other.hints.listen(DUE, woken.set)
        await poked_until(store, DUE, woken)
        await asyncio.to_thread(allow, any_dsn, name, allowed=False)
        await side.execute(KILL)

        async def tried() -> bool:
            return caplog.text.count("still no hints") >= 4

        await eventually(tried)
        await asyncio.to_thread(allow, any_dsn, name, allowed=True)

        await poked_until(store, DUE, woken)

    said = [record.getMessage() for record in caplog.records]
    assert 1 <= len([text for text in said if text.startswith("no hints")]) <= 2, "two stores"
    assert "there are hints again" in said


def allow(dsn: str, name: str, *, allowed: bool) -> None:
    """Let nobody connect to a database any more, or everybody again."""
    with psycopg.connect(dsn.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(allowed).lower()}')


async def test_a_listener_hears_again_after_its_connection_was_lost(
    store: Store, side: Connection, any_dsn: str
) -> None:
    woken = asyncio.Event()
    async with open_store(any_dsn) as other:
        other.hints.listen(DUE, woken.set)
        await poked_until(store, DUE, woken)
        await side.execute(KILL)

        await poked_until(store, DUE, woken)

    assert woken.is_set()

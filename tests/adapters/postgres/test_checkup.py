"""What `saga doctor` says of a database that is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psycopg
import pytest

from orchestrator.adapters.postgres import checkup
from orchestrator.adapters.postgres.store import open_store
from orchestrator.errors import UnavailableError
from orchestrator.ports import Finding, Store, Verdict
from tests.contract.given import LEASE, ORDER, Given
from tests.servers import Server, migrate


async def said(dsn: str, long_open: float = 300.0) -> dict[str, Finding]:
    """All findings, by their subject."""
    return {one.subject: one for one in await checkup.examine(dsn, [], long_open=long_open)}


@pytest.fixture
def clerk(dsn: str) -> Iterator[str]:
    """The database as a role sees it that was granted nothing."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
        parts = urlsplit(dsn)
        yield urlunsplit(parts._replace(netloc=f"clerk:clerk@{parts.hostname}:{parts.port}"))
        connection.execute("DROP OWNED BY clerk")
        connection.execute("DROP ROLE clerk")


async def test_nothing_is_wrong_with_a_database_of_ours(any_dsn: str) -> None:
    found = await said(any_dsn)
    assert found["rights"].verdict is Verdict.FINE
    assert found["transactions"].verdict is Verdict.FINE
    assert found.keys().isdisjoint({"encoding", "collation", "pooler"})


async def test_missing_rights_are_listed_and_named_at_the_start(dsn: str, clerk: str) -> None:
    with pytest.raises(UnavailableError, match=r"permission denied.*GRANT it to the role"):
        async with open_store(clerk):
            pass
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk")
        found = (await said(clerk))["rights"]
        assert found.verdict is Verdict.FAILED
        assert "the role clerk lacks" in found.text
        assert "INSERT on event;" in found.text
        assert "USAGE, SELECT on event_position" in found.text


async def test_a_role_with_the_rights_that_are_listed_can_do_everything(
    dsn: str, clerk: str
) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("GRANT SELECT ON saga_schema_version TO clerk")
        while (found := (await said(clerk))["rights"]).verdict is not Verdict.FINE:
            listed = found.text.removeprefix("the role clerk lacks ").removesuffix("; GRANT it")
            for part in listed.split("; "):
                rights, _, name = part.partition(" on ")
                kind = "SEQUENCE" if name == "event_position" else "TABLE"
                owner.execute(f"GRANT {rights} ON {kind} {name} TO clerk")
    async with open_store(clerk) as store:
        given = Given(store)
        [(worker, claim)] = await given.claimed()
        assert await store.events.append([given.append(worker, claim)]) == {claim.saga_id: 0}
        assert await store.feed.acquire("events", "me", LEASE) is not None
        assert len((await store.feed.read(0, 10)).events) == 1
        assert await store.queue.claim(worker, 10, [ORDER]) == []
        await store.fleet.leave(worker)


async def test_who_only_reads_in_another_database_keeps_no_row_of_ours(
    any_dsn: str, store: Store
) -> None:
    elsewhere = await asyncpg.connect(urlunsplit(urlsplit(any_dsn)._replace(path="/postgres")))
    async with elsewhere.transaction(isolation="repeatable_read"):
        await elsewhere.execute("SELECT pg_sleep(0.3)")
        assert await store.fleet.oldest_transaction() < 0.3
    here = await asyncpg.connect(any_dsn)
    async with here.transaction(isolation="repeatable_read"):
        await here.execute("SELECT pg_sleep(0.3)")
        assert await store.fleet.oldest_transaction() >= 0.3
    await elsewhere.close()
    await here.close()


async def test_a_transaction_that_is_open_for_long_is_named_whosever_it_is(
    any_dsn: str, store: Store
) -> None:
    elsewhere = await asyncpg.connect(
        urlunsplit(urlsplit(any_dsn)._replace(path="/postgres")),
        server_settings={"application_name": "a report"},
    )
    assert await store.fleet.oldest_transaction() < 0.2
    async with elsewhere.transaction():
        await elsewhere.execute("CREATE TEMP TABLE held (n int)")
        await elsewhere.execute("SELECT pg_sleep(0.3)")
        assert await store.fleet.oldest_transaction() >= 0.3
        found = (await said(any_dsn, long_open=0.3))["transactions"]
        assert found.verdict is Verdict.WARNING
        assert "a report (process " in found.text
        assert (await said(any_dsn))["transactions"].verdict is Verdict.FINE
    assert await store.fleet.oldest_transaction() < 0.2
    await elsewhere.close()


async def test_text_that_is_sorted_otherwise_than_before_is_said(any_dsn: str) -> None:
    with psycopg.connect(any_dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE pg_database SET datcollversion = '1.0' WHERE datname = current_database()"
        )
    found = (await said(any_dsn))["collation"]
    assert found.verdict is Verdict.WARNING
    assert "REINDEX" in found.text


async def test_a_database_that_is_not_in_utf_8_is_said(pg_server: Server) -> None:
    with psycopg.connect(pg_server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' "
            "LOCALE_PROVIDER libc LOCALE 'C'"
        )
        try:
            migrate(pg_server.dsn("latin"))
            found = (await said(pg_server.dsn("latin")))["encoding"]
        finally:
            connection.execute("DROP DATABASE latin WITH (FORCE)")
    assert found.verdict is Verdict.FAILED
    assert "LATIN1" in found.text

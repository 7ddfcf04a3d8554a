"""What all tests share: databases of their own, cloned from a migrated template, and a broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from tests.brokers import Broker, NoBrokerError, fetch_kafka, open_broker
from tests.poolers import NoPoolerError, open_pooler
from tests.redis_server import NoRedisError, open_redis_server
from tests.servers import (
    POSTGRES_15,
    DurableServer,
    Server,
    fast_server,
    load_schema,
    migrate,
    open_dir,
)

BROKER = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def pg_server() -> Iterator[Server]:
    """The embedded PostgreSQL 18, in memory."""
    with fast_server() as server:
        yield server


@pytest.fixture(scope="session")
def pg15_server() -> Iterator[Server]:
    """The oldest PostgreSQL that we support, where the system has it."""
    if not (POSTGRES_15 / "postgres").exists():
        pytest.skip(f"PostgreSQL 15 is not installed in {POSTGRES_15}")
    with fast_server(POSTGRES_15) as server:
        yield server


pg_template = factories.postgresql_noproc(
    depends_on="pg_server", dbname="saga_test", load=[load_schema]
)
pg_database = factories.postgresql("pg_template")
pg15_template = factories.postgresql_noproc(
    depends_on="pg15_server", dbname="saga_test", load=[load_schema]
)
pg15_database = factories.postgresql("pg15_template")


@pytest.fixture
def dsn(pg_template: NoopExecutor, pg_database: psycopg.Connection) -> str:
    """A migrated database of the test's own, on PostgreSQL 18."""
    return _dsn(pg_template, pg_database)


@pytest.fixture
def pg15_dsn(pg15_template: NoopExecutor, pg15_database: psycopg.Connection) -> str:
    """As `dsn`, on PostgreSQL 15."""
    return _dsn(pg15_template, pg15_database)


@pytest.fixture(params=["dsn", "pg15_dsn"], ids=["postgres18", "postgres15"])
def any_dsn(request: pytest.FixtureRequest) -> str:
    """As `dsn`, once for each PostgreSQL that we support and have."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def pooled_dsn(dsn: str) -> Iterator[str]:
    """The database of `dsn`, reached through a PgBouncer in transaction mode."""
    try:
        with open_pooler(dsn) as pooled:
            yield pooled
    except NoPoolerError as reason:
        pytest.skip(f"there is no PgBouncer: {reason}")


@pytest.fixture
def empty_dsn(pg_server: Server) -> Iterator[str]:
    """A database without any schema, for migrations."""
    with psycopg.connect(pg_server.dsn("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty_test TEMPLATE template0")
        yield pg_server.dsn("empty_test")
        connection.execute("DROP DATABASE empty_test WITH (FORCE)")


@pytest.fixture
def durable_pg() -> Iterator[DurableServer]:
    """A migrated server on disk that the test may crash and start again."""
    with open_dir(durable=True) as path:
        server = DurableServer(path)
        try:
            migrate(server.dsn)
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The session's broker; the summary says which it was."""
    try:
        with open_broker() as broker:
            request.config.stash[BROKER] = broker.name
            yield broker
    except NoBrokerError as reason:
        request.config.stash[BROKER] = f"none: {reason}"
        pytest.skip(f"there is no broker: {reason}")


@pytest.fixture(scope="session")
def kafka(broker: Broker) -> str:
    """The bootstrap servers of a real broker."""
    return broker.servers


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a real Redis, or of Valkey, which speaks the same."""
    try:
        with open_redis_server() as url:
            yield url
    except NoRedisError as reason:
        pytest.skip(f"there is no Redis: {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no process is left with one of them at the end."""
    long = {
        item.path
        for item in items
        if any(item.get_closest_marker(name) for name in ("slow", "crash", "kafka"))
    }
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch Apache Kafka before the clock of any test runs."""
    wanted = any("broker" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        try:
            fetch_kafka()
        except NoBrokerError as reason:
            session.config.stash[BROKER] = f"not Apache Kafka: {reason}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of several hands what it knows to the one that writes the summary."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None and (name := session.config.stash.get(BROKER, None)):
        told["broker"] = name


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The other end of `pytest_sessionfinish`."""
    if name := getattr(node, "workeroutput", {}).get("broker"):
        node.config.stash[BROKER] = name


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which broker the Kafka tests spoke to."""
    if name := config.stash.get(BROKER, None):
        terminalreporter.write_line(f"broker: {name}")


def _dsn(template: NoopExecutor, database: psycopg.Connection) -> str:
    server = Server(template.host, int(template.port), template.user, template.password or "")
    return server.dsn(database.info.dbname)

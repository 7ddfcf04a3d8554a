"""One migrated database, and one worker on it, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from pytest_postgresql.executors import NoopExecutor

from tests.faces.terminal import Terminal, read_until
from tests.servers import Server


@pytest.fixture(scope="module")
def terminal(pg_server: Server, pg_template: NoopExecutor) -> Iterator[Terminal]:
    """A person with the sagas of tests/faces/parcels.py and a database for the module."""
    with psycopg.connect(pg_server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE faces_test TEMPLATE {pg_template.template_dbname}")
        yield Terminal(pg_server.dsn("faces_test"))
        connection.execute("DROP DATABASE faces_test WITH (FORCE)")


@pytest.fixture(scope="module")
def worked(terminal: Terminal) -> Iterator[Terminal]:
    """As `terminal`, with a worker at work."""
    with terminal.staying("worker") as process:
        read_until(process, "works on", of="stderr")
        yield terminal

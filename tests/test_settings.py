"""Times that contradict each other are refused, with the names of the settings, before any work."""

from __future__ import annotations

import math
import re
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr, ValidationError

from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.bootstrap import open_app
from orchestrator.catalogue import Catalogue
from orchestrator.errors import InvalidInputError
from orchestrator.runtime.worker_settings import WorkerSettings
from orchestrator.settings import Settings
from tests.faces.cli.prompt import process

SHORT: dict[str, Any] = {
    "lease_ttl": 2.0,
    "lease_margin": 0.4,
    "renew_every": 0.2,
    "command_timeout": 0.3,
    "connect_timeout": 1.0,
    "lock_timeout": 0.2,
    "idle_in_transaction_timeout": 3.0,
}
BAD: list[tuple[dict[str, str], list[str]]] = [
    (
        {"LEASE_TTL": "25.9"},
        ["LEASE_TTL", "RENEW_EVERY", "COMMAND_TIMEOUT", "LEASE_MARGIN"],
    ),
    ({"COMMAND_TIMEOUT": "6.1"}, ["LEASE_TTL", "COMMAND_TIMEOUT"]),
    ({"RENEW_EVERY": "6"}, ["LEASE_TTL", "RENEW_EVERY"]),
    ({"LEASE_MARGIN": "20"}, ["LEASE_TTL", "LEASE_MARGIN"]),
    ({"CONNECT_TIMEOUT": "25"}, ["CONNECT_TIMEOUT", "LEASE_TTL", "LEASE_MARGIN", "RENEW_EVERY"]),
    ({"LOCK_TIMEOUT": "5.5"}, ["LOCK_TIMEOUT", "COMMAND_TIMEOUT"]),
    ({"LEASE_TTL": "nan"}, ["LEASE_TTL"]),
    ({"COMMAND_TIMEOUT": "0.0001"}, ["COMMAND_TIMEOUT"]),
    ({"IDLE_IN_TRANSACTION_TIMEOUT": "0"}, ["IDLE_IN_TRANSACTION_TIMEOUT"]),
    ({"STEP_TIMEOUT": "inf"}, ["STEP_TIMEOUT"]),
    ({"POOL_SIZE": "0"}, ["POOL_SIZE"]),
    ({"POOLER": "session"}, ["POOLER"]),
]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"SAGA_{field.upper()}", raising=False)


@pytest.mark.parametrize(("given", "named"), BAD, ids=" ".join)
def test_what_contradicts_itself_is_refused_by_name(
    given: dict[str, str], named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"SAGA_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    [error] = refused.value.errors()
    told = " ".join([*(f"SAGA_{part}".upper() for part in error["loc"]), error["msg"]])
    assert set(re.findall(r"SAGA_(\w+)", told)) >= set(named)


def test_the_edge_of_each_inequality_is_allowed() -> None:
    at_edge = Settings(
        lease_ttl=26, renew_every=1, command_timeout=5, lease_margin=5,
        connect_timeout=20, lock_timeout=5,
    )  # fmt: skip
    assert at_edge.worker().ttl == 26


@pytest.mark.parametrize("command", ["worker", "up", "relay"])
def test_a_command_that_stays_refuses_bad_times_before_it_touches_anything(command: str) -> None:
    # Nobody listens there: it would wait for the database, if it came that far.
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    with process(
        command, SAGA_DATABASE_URL=nowhere, SAGA_LEASE_TTL="7", SAGA_KAFKA_BOOTSTRAP_SERVERS="x:1"
    ) as running:
        assert running.end(None) == 2
    said = "".join(running.lines)
    assert "the settings are not valid" in said
    assert "SAGA_LEASE_TTL=7 is too short" in said
    assert "waits for the database" not in said


async def test_the_limits_that_are_set_from_outside_reach_worker_and_database(dsn: str) -> None:
    settings = Settings(database_url=SecretStr(dsn), pool_size=3, transactions=2, **SHORT)
    worker = settings.worker(watchdog=True)
    assert (worker.ttl, worker.margin, worker.renew_every) == (2.0, 0.4, 0.2)
    assert (worker.command_timeout, worker.watchdog) == (0.3, True)
    assert settings.postgres() == PostgresSettings(
        pool_size=3, connect_timeout=1.0, command_timeout=0.3, lock_timeout=0.2,
        idle_in_transaction_timeout=3.0, transactions=2,
    )  # fmt: skip
    async with (
        open_app(settings, Catalogue(())) as app,
        app.store.transactions.open(asyncpg.Connection) as lent,
    ):
        shown = [
            await lent.handle.fetchval(f"SHOW {name}")
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        ]
    assert shown == ["300ms", "200ms", "3s"]


@pytest.mark.parametrize("name", ["ttl", "renew_every", "command_timeout", "step_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_a_worker_takes_no_time_that_is_none(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is"):
        WorkerSettings(**{name: value})


@pytest.mark.parametrize("name", ["slots", "claim_limit"])
def test_a_worker_that_would_carry_nothing_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is 0"):
        WorkerSettings(**{name: 0})


@pytest.mark.parametrize("value", [0, 0.0009, -1, math.inf, math.nan])
def test_a_database_is_given_no_limit_that_means_none(value: float) -> None:
    with pytest.raises(InvalidInputError, match="command_timeout is"):
        PostgresSettings(command_timeout=value)

"""Migrate, doctor, and what every command says of a database that it cannot use."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from tests.faces.cli.prompt import Prompt, execute, order

USING = [
    ("list",),
    ("start", "shop", "--input", order()),
    ("show", "0199"),
    ("cancel", "0199"),
    ("verify",),
    ("migrate",),
    ("migrate", "--check"),
]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine where nobody listens, and nobody will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("command", [*USING, ("doctor",)], ids=" ".join)
def test_a_database_that_is_away_is_said_at_once_without_its_password(
    bare: Prompt, monkeypatch: pytest.MonkeyPatch, closed_port: int, command: tuple[str, ...]
) -> None:
    url = f"postgresql://u:sekret@127.0.0.1:{closed_port}/x"
    monkeypatch.setenv("SAGA_DATABASE_URL", url)
    began = time.monotonic()
    said = bare(*command)
    assert time.monotonic() - began < 5
    assert said.code == 5
    told = said.out + said.err
    assert f"127.0.0.1:{closed_port}" in told
    assert "SAGA_DATABASE_URL" in told
    assert "sekret" not in told
    assert "Traceback" not in told


def test_a_database_that_does_not_answer_is_given_up_in_time(
    bare: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("SAGA_DATABASE_URL", f"postgresql://u:sekret@127.0.0.1:{port}/x")
        began = time.monotonic()
        error = bare("list", "--json").error
    assert time.monotonic() - began < 6
    assert error["exit_code"] == 5
    assert "in time" in error["message"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sekret",
        "mysql://u:sekret@h/x",
        "postgresql://u:sekret@h:port/x",
        "postgresql://u:sekret@h:99999/x",
        "postgresql://u:sekret@[::1/x",
    ],
)
@pytest.mark.parametrize("command", ["list", "doctor", "migrate", "worker"])
def test_a_database_url_that_is_none_is_refused_without_its_password(
    bare: Prompt, monkeypatch: pytest.MonkeyPatch, url: str, command: str
) -> None:
    if command == "worker":
        pytest.importorskip("uvloop")
    monkeypatch.setenv("SAGA_DATABASE_URL", url)
    error = bare(command, "--json").err
    assert '"exit_code": 2' in error
    assert "SAGA_DATABASE_URL must look like" in error
    assert "sekret" not in error


def test_a_wrong_password_is_said_without_it(
    bare: Prompt, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    scheme, _, rest = dsn.partition("//")
    host = rest.rpartition("@")[2]
    monkeypatch.setenv("SAGA_DATABASE_URL", f"{scheme}//postgres:sekret@{host}")
    said = bare("list")
    assert said.code == 5
    assert "refused us" in said.err
    assert "sekret" not in said.err


@pytest.mark.parametrize("variable", ["SAGA_SLOTS", "SAGA_LEASE_TTL"])
@pytest.mark.parametrize("command", ["list", "worker", "relay", "up", "doctor", "migrate"])
def test_a_setting_that_is_none_is_named(
    bare: Prompt, monkeypatch: pytest.MonkeyPatch, variable: str, command: str
) -> None:
    monkeypatch.setenv(variable, "plenty")
    error = bare(command, "--json").error
    assert error["exit_code"] == 2
    [problem] = error["problems"]
    assert problem.startswith(f"{variable}: ")


def test_a_relay_without_a_broker_says_what_to_set(saga: Prompt) -> None:
    error = saga("relay", "--json").error
    assert error["exit_code"] == 2
    assert "SAGA_KAFKA_BOOTSTRAP_SERVERS" in error["message"]


def test_migrate_tells_each_step_and_every_command_says_what_mends_a_schema(
    bare: Prompt, monkeypatch: pytest.MonkeyPatch, empty_dsn: str
) -> None:
    monkeypatch.setenv("SAGA_DATABASE_URL", empty_dsn)
    for command in (("list",), ("doctor",), ("migrate", "--check"), ("worker",)):
        said = bare(*command)
        assert said.code == 5, command
        assert "run `saga migrate`" in said.out + said.err
    migrated = bare("migrate")
    assert migrated.code == 0
    steps = [line for line in migrated.err.splitlines() if line.startswith("upgrade")]
    assert "0001" in steps[0]
    assert len(steps) >= 4
    revision = bare("migrate", "--json").json["revision"]
    assert bare("migrate", "--check", "--json").json == {"revision": revision}
    asyncio.run(execute(empty_dsn, "UPDATE saga_schema_version SET version_num = '9999'"))
    for command in (("list",), ("doctor",), ("migrate", "--check"), ("migrate",), ("worker",)):
        said = bare(*command)
        assert said.code == 5, command
        assert "pgrade" in said.out + said.err


def test_the_doctor_finds_all_well_but_no_worker(saga: Prompt) -> None:
    findings = {found["subject"]: found for found in saga("doctor", "--json").json}
    assert {
        "database",
        "PostgreSQL",
        "schema",
        "partitions",
        "durability",
        "workers",
        "broker",
    } <= (findings.keys())
    assert findings["workers"]["verdict"] == "warning"
    assert "saga worker" in findings["workers"]["text"]
    assert all(found["verdict"] != "failed" for found in findings.values())
    assert saga("doctor").code == 0


def test_the_doctor_names_what_waits_for_a_worker_that_nobody_runs(saga: Prompt, dsn: str) -> None:
    saga("start", "shop", "--input", order())
    asyncio.run(execute(dsn, "UPDATE saga SET due_at = due_at - interval '2 minutes'"))
    found = {one["subject"]: one["text"] for one in saga("doctor", "--json").json}
    assert found["shop version 1"].startswith("1 due for over a minute")


def test_the_doctor_fails_when_the_configured_broker_is_away(
    saga: Prompt, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("SAGA_KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{closed_port}")
    said = saga("doctor")
    assert said.code == 5
    assert "✗ broker" in said.out

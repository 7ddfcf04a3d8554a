"""The command why: one answer to why an instance does not move, for people and for programs."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from tests.faces.cli.prompt import Prompt, Running, Said, execute, order, status_of, worker


def started(saga: Prompt, name: str, input: object = 1) -> str:
    """The id of a new instance."""
    said = saga("start", name, "--input", input)
    assert said.code == 0, said.err
    return said.out.strip()


def first(said: Said) -> str:
    """The first line, which is the main reason."""
    assert said.code == 0, said.err
    return said.out.splitlines()[0]


def test_without_a_worker_it_says_so_and_how_to_start_one(saga: Prompt) -> None:
    id_ = started(saga, "shop", order())
    said = saga("why", id_)
    assert first(said) == "no worker is alive that could go on with shop version 1"
    assert "saga worker --sagas MODULE  # one that holds shop version 1" in said.out
    assert id_ in said.out


def test_a_worker_without_the_saga_is_named_with_what_it_serves(saga: Prompt, dsn: str) -> None:
    with worker(dsn, "--sagas", "sagas.money_transfer"):
        id_ = started(saga, "shop", order())
        told = first(saga("why", id_))
    assert told.startswith("no live worker serves shop version 1; these live workers serve other")
    assert "version 1)" in told


def test_a_signal_is_named_with_the_command_that_sends_it(saga: Prompt, working: Running) -> None:
    id_ = started(saga, "asking")
    status_of(saga, id_, "waiting")
    said = saga("why", id_)
    assert first(said) == "it waits for the signal verdict"
    assert f"  saga signal {id_} verdict JSON" in said.out.splitlines()
    assert "since" in said.out


def test_it_is_told_as_json(saga: Prompt, working: Running) -> None:
    id_ = started(saga, "patient", order())
    status_of(saga, id_, "waiting")
    found = saga("why", id_, "--json").json
    assert (found["id"], found["saga"], found["status"]) == (id_, "patient", "waiting")
    [reason] = found["reasons"]
    assert reason["cause"] == "retry"
    assert reason["text"] == found["reason"]
    assert reason["text"] == "call_later failed and is tried again (attempt 2): Retryable: busy"
    wait = datetime.fromisoformat(reason["until"]) - datetime.fromisoformat(reason["since"])
    assert 3590 < wait.total_seconds() <= 3600


def test_stuck_names_the_reason_and_the_repairs(saga: Prompt, working: Running) -> None:
    id_ = started(saga, "broken-undo")
    status_of(saga, id_, "stuck")
    said = saga("why", id_)
    assert first(said).startswith("it is stuck at charge, a person is needed: the compensation of")
    assert f"saga retry {id_} charge" in said.out
    assert f"saga skip {id_} charge --reason TEXT" in said.out
    doubtful = started(saga, "unlucky")
    status_of(saga, doubtful, "stuck")
    assert f"saga resolve {doubtful} lose --happened" in saga("why", doubtful).out


def test_a_worker_that_runs_a_step_is_named_with_its_lease(saga: Prompt, dsn: str) -> None:
    with worker(dsn, SAGA_GRACE="1") as running:
        id_ = started(saga, "slow")
        running_row = status_of(saga, id_, "running")
        found = saga("why", id_, "--json").json
        assert found["owner"] == running_row["owner"]
        reason = found["reasons"][0]
        assert reason["cause"] == "working"
        assert f"({found['owner']}) is at work on it" in reason["text"]
        assert datetime.fromisoformat(reason["until"]) > datetime.fromisoformat(found["at"])
        running.end()


def test_an_instance_that_has_ended_says_how(saga: Prompt, working: Running) -> None:
    id_ = saga("start", "shop", "--input", order(5000), "--wait", "--json")
    assert id_.code == 1
    [row] = saga("list", "--json").json
    assert first(saga("why", row["id"])).startswith("it has ended, compensated: Permanent: too")
    assert "\x1b" not in saga("why", row["id"]).out


def test_an_unknown_id_is_not_found(saga: Prompt) -> None:
    assert saga("why", "0199").code == 3


def test_a_database_that_is_away_is_said_with_the_usual_exit_code(
    bare: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    said = bare("why", "0199c2e4", "--json")
    assert said.code == 5
    assert said.error["error"] == "UnavailableError"
    assert "127.0.0.1:1" in bare("why", "0199c2e4").err


def test_events_that_no_relay_published_are_counted(
    saga: Prompt, dsn: str, working: Running
) -> None:
    stalled = "INSERT INTO relay_cursor VALUES ('events', 0, 1, NULL, now(), now())"
    asyncio.run(execute(dsn, stalled))
    id_ = started(saga, "asking")
    status_of(saga, id_, "waiting")
    said = saga("why", id_)
    assert "of its events are not published yet by relay events; no relay runs" in said.out
    assert "  saga relay" in said.out.splitlines()

"""`saga prune`: counts first, removes when told to, and says what stays and why."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.faces.cli.prompt import Prompt, Running, execute, order, status_of


@pytest.fixture
def ended(saga: Prompt, working: Running) -> str:
    """An instance that has completed."""
    saga_id: str = saga("start", "shop", "--input", order(), "--json").json["id"]
    status_of(saga, saga_id, "completed")
    return saga_id


def soon() -> str:
    """A moment after all that the test has done; ids are as old as their instances."""
    return datetime.now(UTC).isoformat()


def test_without_yes_it_only_counts(saga: Prompt, ended: str) -> None:
    said = saga("prune", "--before", soon())
    assert said.code == 0
    assert "1 instances with " in said.out
    assert "nothing was removed; to remove them add --yes" in said.out
    found = saga("prune", "--before", soon(), "--json").json
    assert (found["sagas"], found["unpublished"], found["removed"]) == (1, 0, False)
    assert saga("show", ended).code == 0


def test_with_yes_it_is_gone(saga: Prompt, ended: str) -> None:
    assert "removed 1 instances" in saga("prune", "--before", soon(), "--yes").out
    assert saga("show", ended).code == 3
    done = saga("prune", "--before", soon(), "--yes", "--json").json
    assert done == {"sagas": 0, "events": 0, "months": [], "removed": True, "stayed": 0}


def test_what_is_not_published_stays_and_it_says_so(saga: Prompt, ended: str, dsn: str) -> None:
    relay = "INSERT INTO relay_cursor (relay, position, epoch, owner, lease_until) "
    values = "VALUES ('events', 1, 1, gen_random_uuid(), now())"
    asyncio.run(execute(dsn, relay + values))
    for yes in ((), ("--yes",)):
        said = saga("prune", "--before", soon(), *yes)
        assert "1 of them stay: a relay has not published them yet" in said.out
    assert saga("show", ended).code == 0


@pytest.mark.parametrize(
    ("left", "rows"),
    [
        ("('events', 1, 1, NULL, '2026-03-01 12:00+00')", "relay = 'events'"),
        (
            "('events/0', 9, 1, NULL, now()), ('events/1', 1, 1, 'ann', '2026-03-01 12:00+00')",
            "starts_with(relay, 'events/')",
        ),
    ],
)
def test_a_checkpoint_that_nobody_moves_is_named_and_what_to_do_about_it(
    saga: Prompt, ended: str, dsn: str, left: str, rows: str
) -> None:
    columns = "(relay, position, epoch, owner, lease_until)"
    asyncio.run(execute(dsn, f"INSERT INTO relay_cursor {columns} VALUES {left}"))

    said = " ".join(saga("prune", "--before", soon()).out.split())
    known = saga("prune", "--before", soon(), "--json").json["behind"]
    assert known["position"] == 1
    assert f"the checkpoint {known['relay']!r} is the last one, at position 1, and no" in said
    assert "since 2026-03-01 12:00 UTC: start `saga relay`" in said

    told = f"DELETE FROM relay_cursor WHERE {rows}"
    assert told in said
    asyncio.run(execute(dsn, told))
    assert "removed 1 instances" in saga("prune", "--before", soon(), "--yes").out


def test_a_checkpoint_that_a_relay_moves_is_waited_for(saga: Prompt, ended: str, dsn: str) -> None:
    row = "('events/0', 1, 1, 'ann', now() + interval '1 hour')"
    columns = "(relay, position, epoch, owner, lease_until)"
    asyncio.run(execute(dsn, f"INSERT INTO relay_cursor {columns} VALUES {row}"))
    said = " ".join(saga("prune", "--before", soon()).out.split())
    assert "'events/0' is the last one, at position 1; a relay moves it now: try again" in said
    assert "DELETE" not in said


@pytest.mark.parametrize("before", ["yesterday", "5x", "", "99999999999d"])
def test_a_moment_that_is_none_is_refused(saga: Prompt, before: str) -> None:
    said = saga("prune", "--before", before)
    assert said.code == 2
    assert "write a day (2026-01-31), an ISO time, or an age (90d, 12h)" in said.err


def test_a_moment_that_has_not_come_yet_is_refused(saga: Prompt) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    said = saga("prune", "--before", later, "--yes")
    assert said.code == 2
    assert "in the future" in said.err


def test_an_age_is_counted_from_now(saga: Prompt, ended: str) -> None:
    assert saga("prune", "--before", "1d", "--json").json["sagas"] == 0
    assert saga("prune", "--before", "0d", "--json").json["sagas"] == 1

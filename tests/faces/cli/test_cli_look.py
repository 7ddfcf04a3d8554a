"""The commands that look: every answer in both voices, and nothing in a name moves the cursor."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime

import pytest

from orchestrator.domain.events import ENDED, Status
from tests.faces.cli.prompt import Prompt, Running, execute, order, status_of, worker


@pytest.fixture
def ids(saga: Prompt, dsn: str) -> dict[str, str]:
    """An instance that completed and one that was undone, by their status."""
    with worker(dsn) as running:
        for amount, key in ((5, "plain"), (5000, "odd [bold]x[/bold]")):
            saga("start", "shop", "--input", order(amount), "--wait", "--key", key)
        assert running.end() == 0
    found = {row["status"]: row["id"] for row in saga("list", "--json").json}
    assert {Status(status) for status in found} <= ENDED
    return found


def test_every_answer_is_told_as_json(saga: Prompt, ids: dict[str, str]) -> None:
    done, undone = ids["completed"], ids["compensated"]
    [row] = saga("list", "--status", "compensated", "--json").json
    assert row["id"] == undone
    assert datetime.fromisoformat(row["created_at"]).tzinfo is not None
    shown = saga("show", undone, "--json").json
    assert shown["definition_known"] is True
    assert shown["last_failure"].startswith("pay: Permanent: too much")
    assert [(line["label"], line["mark"]) for line in shown["tree"] if line["mark"]] == [
        ("hold", "↩"), ("pay", "✗"), ("send", "↩"), ("pure both", "·")
    ]  # fmt: skip
    entries = saga("history", undone, "--json").json
    assert [entry["seq"] for entry in entries] == list(range(1, shown["events"] + 1))
    assert entries[1]["step"] == "hold"
    assert saga("history", undone, "--at", 2, "--json").json == entries[:2]
    assert saga("graph", done, "--json").json["mermaid"].startswith("flowchart LR\n")
    assert saga("replay", done, "--json").json["agrees"] is True
    assert saga("verify", done, "--json").json["sagas"] == 1
    assert saga("verify", "--json").json["sagas"] == 2
    watched = [json.loads(line) for line in saga("watch", done, "--json").out.splitlines()]
    assert watched == saga("history", done, "--json").json


def test_every_answer_is_told_to_people(saga: Prompt, ids: dict[str, str]) -> None:
    done, undone = ids["completed"], ids["compensated"]
    listed = saga("list").out
    assert done in listed
    assert undone in listed
    assert "odd [bold]x[/bold]" in listed
    shown = saga("show", undone).out
    for text in ("↩ hold", "✗ pay", "waits for  nothing", "shop version 1", "failed     pay:"):
        assert text in shown
    told = saga("history", undone).out
    assert "the saga turns round: Permanent: too much" in told
    assert "all that may have happened was undone" in told
    assert "the saga completed" in saga("watch", done).out
    assert "✓ hold" in saga("graph", done).out
    assert "agrees with the row (completed)" in saga("replay", done).out
    assert saga("verify").out.startswith("2 hash chains with ")


def test_no_control_character_of_a_payload_reaches_the_terminal(
    saga: Prompt, ids: dict[str, str]
) -> None:
    for command in ("show", "history", "watch", "graph"):
        said = saga(command, ids["compensated"])
        assert "\x1b" not in said.out
        assert "\u202e" not in said.out
    assert "\\x1b[31m\\u202e[bold]x[/bold]" in saga("history", ids["compensated"]).out


def test_lists_are_filtered(saga: Prompt) -> None:
    saga("start", "shop", "--input", order())
    saga("start", "slow", "--input", "1")
    for flags, count in (
        (("--name", "shop"), 1),
        (("--status", "pending"), 2),
        (("--status", "stuck"), 0),
        (("--since", "1h"), 2),
        (("--since", "2999-01-01"), 0),
        (("--tag", "colour=red"), 0),
        (("--limit", "1"), 1),
    ):
        assert len(saga("list", *flags, "--json").json) == count, flags
    assert saga("list", "--status", "stuck").out == "no instance is like that\n"


@pytest.mark.parametrize(
    "flags",
    [
        ("--tag", "colour"),
        ("--tag", "=red"),
        ("--since", "yesterday"),
        ("--since", "99999999999999d"),
        ("--name", "\udcff"),
    ],
)
def test_a_filter_that_is_none_is_refused(saga: Prompt, flags: tuple[str, str]) -> None:
    assert saga("list", *flags).code == 2
    assert saga("list", *flags, "--json").error["exit_code"] == 2


@pytest.mark.parametrize("command", ["show", "history", "watch", "cancel", "replay", "verify"])
@pytest.mark.parametrize("wanted", ["zzz", "", "'", "00000000-0000-7000-8000-000000000000"])
def test_an_unknown_id_is_not_found(saga: Prompt, command: str, wanted: str) -> None:
    assert saga(command, wanted).code == 3
    assert saga(command, wanted, "--json").error["exit_code"] == 3


def test_an_id_may_be_shortened_until_it_means_two(saga: Prompt) -> None:
    first = saga("start", "slow", "--input", "1").out.strip()
    second = saga("start", "slow", "--input", "2").out.strip()
    assert saga("show", first[:30].upper(), "--json").json["id"] == first
    error = saga("show", first[:3], "--json").error
    assert error["exit_code"] == 3
    assert sorted(error["nearest"]) == sorted([first, second])


def test_a_graph_of_a_saga_needs_no_database(bare: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGA_DATABASE_URL", "postgresql://u:sekret@127.0.0.1:1/x")
    assert 'n1["hold<br/>undo"]' in bare("graph", "shop").out


def test_a_definition_that_this_process_lacks_is_said(
    saga: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = saga("start", "shop", "--input", order()).out.strip()
    monkeypatch.setenv("SAGA_SAGAS", "sagas")
    assert "no definition of it" in saga("show", saga_id).out
    assert "this process has no such saga" in saga("show", saga_id, "--json").json["waits_for"]
    assert saga("graph", saga_id).code == 3
    assert saga("start", "shop", "--input", order(), "--json").error["exit_code"] == 3


def test_looking_does_not_need_the_sagas_modules(
    saga: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = saga("start", "shop", "--input", order()).out.strip()
    monkeypatch.setenv("SAGA_SAGAS", "no_such_module")
    for command in (("list",), ("show", saga_id), ("history", saga_id), ("cancel", saga_id)):
        assert saga(*command).code == 0


def test_a_changed_event_is_found_and_named(saga: Prompt, ids: dict[str, str], dsn: str) -> None:
    asyncio.run(
        execute(
            dsn,
            "SET session_replication_role = replica",
            f"UPDATE event SET data = '{{}}' WHERE saga_id = '{ids['completed']}' AND version = 2",
        )
    )
    for flags in ((), (ids["completed"],)):
        error = saga("verify", *flags, "--json").error
        assert error["exit_code"] == 1
        assert f"{ids['completed']}: event 2" in error["message"]


def test_a_row_that_its_history_does_not_lead_to_is_found(
    saga: Prompt, ids: dict[str, str], dsn: str
) -> None:
    asyncio.run(execute(dsn, f"UPDATE saga SET status = 'stuck' WHERE id = '{ids['completed']}'"))
    said = saga("replay", ids["completed"])
    assert said.code == 1
    assert "DIFFERS" in said.out


def test_parents_and_children_name_each_other(saga: Prompt, working: Running) -> None:
    above = saga("start", "family", "--input", "5", "--json").json["id"]
    found = status_of(saga, above, "waiting")
    assert found["parent"] is None
    assert found["waits_for"].startswith("2 child sagas")
    one, other = [child["id"] for child in found["children"]]
    assert [child["saga"] for child in found["children"]] == ["asking", "asking"]
    shown = saga("show", above).out
    assert "children   2: 2 waiting" in shown
    assert f"{one}  asking v1  waiting" in shown

    listed = saga("list", "--parent", above, "--json").json
    assert {row["id"] for row in listed} == {one, other}
    assert {row["parent"] for row in listed} == {above}
    assert len(saga("list", "--parent", above[:30], "--status", "waiting", "--json").json) == 2
    assert saga("list", "--parent", one).out == "no instance is like that\n"
    assert saga("list", "--parent", "zzz").code == 3

    assert f"parent     {above}  family v1  waiting" in saga("show", one).out
    saga("signal", one, "verdict", '{"approved": true}')
    status_of(saga, one, "completed")
    waits = status_of(saga, above, "waiting")["waits_for"]
    assert waits.startswith(f"its child {other}, which is waiting")
    assert "children   2: 1 waiting, 1 completed" in saga("show", above).out
    saga("signal", other, "verdict", '{"approved": true}')
    assert status_of(saga, above, "completed")["parent"] is None

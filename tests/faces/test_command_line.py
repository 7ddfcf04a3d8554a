"""Every command of `saga`, as a process, on a real database, with a worker at work."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import psycopg
import pytest

from tests.faces.terminal import Terminal, end, read_until, stop

PARCEL = '{"order_id": "o-1", "weight": 2.5}'
COMMANDS = (
    "up", "worker", "relay", "start", "cancel", "list", "show", "history", "watch", "graph",
    "replay", "verify", "migrate", "doctor", "demo",
)  # fmt: skip
OWN = """
from contextlib import asynccontextmanager

from orchestrator import Saga, WorkflowContext, step


class Bell:
    def ring(self) -> str:
        return "ding"


@step
async def ring(times: int, ctx: WorkflowContext) -> str:
    return ctx.use(Bell).ring() * times


bells = Saga("bells", version=1, body=ring)


@asynccontextmanager
async def resources(dsn):
    assert dsn.startswith("postgresql://")
    yield {Bell: Bell()}
"""


@pytest.fixture(scope="module")
def finished(worked: Terminal) -> str:
    """The id of an instance that completed, with a key that would move the cursor."""
    done = worked.saga(
        "start", "parcel-sent", "--input", PARCEL, "--key", "k-[1]", "--wait", "--json"
    )
    assert (done.code, done.json["status"], done.json["result"]) == (0, "completed", 5.0), done.err
    return str(done.json["id"])


def test_every_command_explains_itself_with_an_example() -> None:
    terminal = Terminal()
    running = [(name, terminal.popen(name, "--help")) for name in COMMANDS]
    for name, process in running:
        done = end(process)
        assert done.code == 0, done.err
        assert "Example:" in done.out, name
        assert f"saga {name}" in done.out.split("Example:")[1], name


def test_help_names_every_command_where_to_begin_and_what_exit_codes_mean() -> None:
    done = Terminal().saga("--help")
    assert done.code == 0
    said = " ".join(done.out.replace("│", " ").split())
    assert all(f" {name} " in said for name in COMMANDS)
    assert "saga demo" in said
    assert "SAGA_DATABASE_URL" in said
    assert "Exit codes: 0 done" in said


def test_a_saga_is_started_and_waited_for(worked: Terminal) -> None:
    done = worked.saga("start", "parcel-sent", "--input", PARCEL, "--wait")
    assert (done.code, done.out) == (0, "5.0\n")
    assert "started " in done.err


def test_a_saga_that_did_not_complete_exits_1_and_says_why_without_moving_the_cursor(
    worked: Terminal,
) -> None:
    done = worked.saga("start", "parcel-refused", "--input", PARCEL, "--wait")
    assert done.code == 1
    assert "compensated" in done.err
    assert "no [bold]courier[/bold] takes \\x1b[31mit" in done.err
    assert "\x1b" not in done.out + done.err


def test_an_instance_is_shown_read_drawn_replayed_and_verified(
    worked: Terminal, finished: str
) -> None:
    shown = worked.saga("show", finished[:-3], "--json").json
    assert (shown["id"], shown["key"], shown["waits_for"]) == (
        finished, "k-[1]", "nothing: it has ended",
    )  # fmt: skip
    assert [line["mark"] for line in shown["tree"]] == ["", "✓", "✓"]
    history = worked.saga("history", finished, "--json").json
    assert [entry["seq"] for entry in history] == list(range(1, len(history) + 1))
    assert history[-1]["type"] == "SagaCompleted"
    assert len(worked.saga("history", finished, "--at", "2", "--json").json) == 2
    assert "✓ weigh" in worked.saga("graph", finished, "--json").json["mermaid"]
    assert worked.saga("replay", finished, "--json").json["agrees"] is True
    assert worked.saga("verify", finished, "--json").json == {
        "sagas": 1, "events": len(history), "verified": True,
    }  # fmt: skip
    watched = worked.saga("watch", finished, "--json")
    assert watched.code == 0
    assert [json.loads(line) for line in watched.out.splitlines()] == history


def test_people_read_the_same_in_words(worked: Terminal, finished: str) -> None:
    words = {
        ("list", "--name", "parcel-sent"): finished,
        ("show", finished): "✓ weigh",
        ("history", finished): "SagaCompleted",
        ("graph", "parcel-sent"): "flowchart LR",
        ("replay", finished): "agrees with the row",
        ("watch", finished): "SagaCompleted",
    }
    running = [(word, worked.popen(*given)) for given, word in words.items()]
    for word, process in running:
        done = end(process)
        assert done.code == 0, done.err
        assert word in done.out


def test_all_instances_are_verified_and_the_event_that_was_changed_is_named(
    worked: Terminal, finished: str
) -> None:
    assert worked.saga("verify", "--json").json["verified"] is True
    with psycopg.connect(worked.dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # past the append-only trigger
        change = "UPDATE event SET epoch = epoch + %s WHERE saga_id = %s AND version = 2"
        connection.execute(change, (1, finished))
        try:
            done = worked.saga("verify")
        finally:
            connection.execute(change, (-1, finished))
    assert (done.code, done.out) == (1, "")
    assert f"{finished}: event 2 " in done.err


def test_a_list_is_narrowed(worked: Terminal, finished: str) -> None:
    found = worked.saga("list", "--status", "completed", "--since", "1h", "--json").json
    assert finished in [one["id"] for one in found]
    assert {one["status"] for one in found} == {"completed"}
    none = worked.saga("list", "--tag", "colour=red")
    assert (none.code, none.out) == (0, "no instance is like that\n")


def test_a_cancelled_instance_is_taken_back_and_its_key_stays_its_own(worked: Terminal) -> None:
    slow = '{"order_id": "o-2", "weight": 1.5}'
    given = ("start", "parcel-waits", "--key", "slow", "--json", "--input")
    saga_id = worked.saga(*given, slow).json["id"]
    asked = worked.saga("cancel", saga_id, "--reason", "called", "--actor", "ann", "--json")
    assert (asked.code, asked.json) == (0, {"id": saga_id, "cancel": "accepted"})
    watched = worked.saga("watch", saga_id)
    assert watched.code == 1
    assert "by ann  called" in watched.out
    late = worked.saga("cancel", saga_id)
    assert late.code == 4
    assert "has ended" in late.err
    assert worked.saga(*given, slow).json["id"] == saga_id
    other = worked.saga(*given, PARCEL)
    assert other.code == 4
    assert json.loads(other.err)["error"] == "KeyConflictError"


def test_json_lines_start_many_each_with_the_key_in_its_field(
    worked: Terminal, tmp_path: Path
) -> None:
    path = tmp_path / "parcels.jsonl"
    path.write_text("".join(f'{{"order_id": "j-{n}", "weight": {n}}}\n' for n in (1, 2, 3)))
    given = ("start", "parcel-sent", "--input", f"@{path}", "--key-field", "order_id", "--json")
    done = worked.saga(*given, "--wait")
    assert (done.code, done.json["ended"]) == (0, {"completed": 3})
    again = worked.saga(*given[:3], "-", *given[4:], input=path.read_text())
    assert again.json["ids"] == done.json["ids"]


def test_a_saga_of_ones_own_runs_with_its_resources(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "belfry.py").write_text(OWN)
    mine = Terminal(terminal.dsn, tmp_path, sagas="belfry")
    with mine.staying("worker") as worker:
        done = mine.saga("start", "bells", "--input", "2", "--wait")
        assert (done.code, done.out) == (0, '"dingding"\n'), done.err
        ended = stop(worker)
        assert ended.code == 0, ended.err


def test_an_idle_worker_ends_with_0_when_it_is_asked_to(terminal: Terminal) -> None:
    with terminal.staying("worker", "--json") as worker:
        said = read_until(worker, "works on", of="stderr")
        assert json.loads(said.splitlines()[0])["level"] == "info"
        worker.send_signal(signal.SIGTERM)
        ended = end(worker, within=3)
        assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err


def test_a_worker_says_that_it_waits_for_a_database_that_is_away(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    away = Terminal(f"postgresql://ann:geheim@127.0.0.1:{port}/shop")
    with away.staying("worker") as worker:
        said = read_until(worker, "waits for the database", of="stderr")
        ended = stop(worker)
    assert ended.code == 0
    assert "geheim" not in said + ended.err
    assert "Traceback" not in said + ended.err


def test_ctrl_c_ends_a_watch_with_130_and_no_traceback(terminal: Terminal) -> None:
    with terminal.staying("watch") as watch:
        read_until(watch, "\n", of="stdout")
        ended = stop(watch, signal.SIGINT)
    assert ended.code == 130
    assert ended.err == ""


def test_a_reader_that_has_gone_away_is_no_traceback(terminal: Terminal) -> None:
    with terminal.staying("list", "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(20)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_database_is_migrated_checked_and_examined(empty_dsn: str) -> None:
    terminal = Terminal(empty_dsn)
    before = terminal.saga("migrate", "--check")
    assert before.code == 5
    assert "saga migrate" in before.err
    done = terminal.saga("migrate", "--json")
    assert done.code == 0, done.err
    checked = terminal.saga("migrate", "--check", "--json")
    assert (checked.code, checked.json) == (0, done.json)
    examined = terminal.saga("doctor", "--json")
    assert {finding["subject"] for finding in examined.json} >= {"database", "broker"}
    assert examined.code == 0, examined.out

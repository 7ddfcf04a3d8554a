"""What people get wrong: each has its exit code, says what to do, and stores nothing."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import psycopg
import pytest

from tests.faces.terminal import Done, Terminal

GOOD = '{"order_id": "b-1", "weight": 1}'


def stored(terminal: Terminal) -> int:
    with psycopg.connect(terminal.dsn) as connection:
        row = connection.execute("SELECT count(*) FROM saga").fetchone()
    assert row is not None
    return int(row[0])


def refused(done: Done, code: int, *words: str) -> None:
    """It exits with *code*, prints nothing as a result, and says the words on stderr."""
    assert (done.code, done.out) == (code, ""), done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("Invalid JSON", "line 1")),
        ('{"order_id": 7, "weight": -1}', ("order_id: ", "\n", "weight: ")),
        ("@no-such-file.json", ("no-such-file.json",)),
    ],
    ids=["malformed", "wrong types", "no file"],
)
def test_an_input_that_is_not_valid_exits_2_and_stores_nothing(
    terminal: Terminal, text: str, words: tuple[str, ...]
) -> None:
    done = terminal.saga("start", "parcel-sent", "--input", text)
    refused(done, 2, *words)
    assert stored(terminal) == 0


def test_each_field_that_is_wrong_has_a_line_of_its_own(terminal: Terminal) -> None:
    wrong = '{"order_id": 7, "weight": -1}'
    done = terminal.saga("start", "parcel-sent", "--input", wrong, "--json")
    refused(done, 2)
    told = json.loads(done.err)
    assert told["exit_code"] == 2
    assert [line.split(":")[0] for line in told["problems"]] == ["order_id", "weight"]


def test_one_bad_line_of_many_is_named_and_nothing_is_stored(
    terminal: Terminal, tmp_path: Path
) -> None:
    path = tmp_path / "parcels.jsonl"
    path.write_text(f'{GOOD}\n\n{{"order_id": "b-2"}}\n')
    done = terminal.saga("start", "parcel-sent", "--input", f"@{path}", "--key-field", "order_id")
    refused(done, 2, "line 3 is not valid; nothing was stored", "weight")
    assert stored(terminal) == 0


def test_a_key_that_would_move_the_cursor_is_refused_and_spelled_out(terminal: Terminal) -> None:
    done = terminal.saga("start", "parcel-sent", "--input", GOOD, "--key", "a\x1b[2J\u202eb")
    refused(done, 2, "printable")
    assert not {"\x1b", "\u202e"} & set(done.err)
    assert stored(terminal) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("list", "--nope"), ("--nope",)),
        (("list", "--status", "asleep"), ("asleep", "completed")),
        (("list", "--since", "yesterday"), ("30m",)),
        (("list", "--tag", "red"), ("key=value",)),
        (("start", "parcel-sent"), ("--input",)),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else None,
)
def test_a_bad_option_exits_2(
    terminal: Terminal, given: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(terminal.saga(*given), 2, *words)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("strat",), ("strat", "did you mean: start")),
        (("start", "parcel-snet", "--input", GOOD), ("parcel-snet", "parcel-sent")),
        (("start", "x\x1b[2J", "--input", GOOD), ("x\\x1b[2J",)),
        (("show", "0199c2e4-dead"), ("0199c2e4-dead",)),
        (("worker", "--sagas", "no_such_module"), ("no_such_module", "import statement")),
    ],
    ids=["command", "saga", "control characters", "id", "module"],
)
def test_what_is_not_there_exits_3_and_the_nearest_is_named(
    terminal: Terminal, given: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = terminal.saga(*given)
    refused(done, 3, *words)
    assert "\x1b" not in done.err


def test_a_database_that_is_away_is_named_soon_and_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    began = time.monotonic()
    done = Terminal(f"postgresql://ann:geheim@127.0.0.1:{port}/shop").saga("list")
    assert time.monotonic() - began < 6
    refused(done, 5, f"127.0.0.1:{port}", "SAGA_DATABASE_URL")
    assert "geheim" not in done.err


def test_a_url_of_another_database_exits_2_without_its_password() -> None:
    done = Terminal("mysql://ann:geheim@127.0.0.1/shop").saga("list")
    refused(done, 2, "postgresql://")
    assert "geheim" not in done.err


def test_a_database_that_is_not_migrated_says_how_to_migrate_it(empty_dsn: str) -> None:
    refused(Terminal(empty_dsn).saga("list"), 5, "saga migrate")


def test_a_worker_does_not_wait_for_a_schema_that_nobody_is_making(empty_dsn: str) -> None:
    done = Terminal(empty_dsn).saga("worker")
    assert done.code == 5
    assert "saga migrate" in done.err


def test_a_schema_newer_than_the_code_says_to_upgrade(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE saga_schema_version SET version_num = '9999'")
    refused(Terminal(dsn).saga("list"), 5, "upgrade")

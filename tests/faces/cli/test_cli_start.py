"""`saga start`: one or many, waited for or not, and everything that can be wrong with an input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.faces.cli.prompt import Prompt, Running, order, status_of

UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"


def test_it_prints_the_id_and_no_more(saga: Prompt) -> None:
    said = saga("start", "shop", "--input", order())
    assert said.code == 0
    assert saga("show", said.out.strip(), "--json").json["status"] == "pending"
    assert said.err == ""


@pytest.mark.usefixtures("working")
def test_with_wait_it_prints_the_result_and_the_exit_code_says_whether_it_completed(
    saga: Prompt,
) -> None:
    done = saga("start", "shop", "--input", order(5), "--wait")
    assert (done.code, done.out) == (0, '"paid 5 and sent"\n')
    undone = saga("start", "shop", "--input", order(5000), "--wait")
    assert (undone.code, undone.out) == (1, "")
    assert "compensated" in undone.err
    told = saga("start", "shop", "--input", order(5), "--within", 20, "--json").json
    assert told["result"] == "paid 5 and sent"
    assert told["status"] == "completed"


@pytest.mark.usefixtures("working")
def test_a_saga_that_did_not_complete_is_told_as_json_with_its_id(saga: Prompt) -> None:
    said = saga("start", "unlucky", "--input", "1", "--wait", "--json")
    assert said.code == 1
    assert '"status": "stuck"' in said.out
    assert said.error["status"] == "stuck"
    shown = saga("show", "--json", said.out.split('"')[3]).json
    assert shown["waits_for"] == "a person"
    assert "no answer" in shown["last_failure"]


def test_a_wait_without_a_worker_ends_in_time_and_the_saga_stays(saga: Prompt) -> None:
    said = saga("start", "shop", "--input", order(), "--within", 0.1, "--json")
    assert said.code == 1
    assert "has not ended within 0.1 s" in said.error["message"]
    assert '"status": "pending"' in said.out


def test_a_wait_that_nobody_works_for_says_so(
    saga: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.faces.cli.acting.PATIENCE", 0.05)
    said = saga("start", "shop", "--input", order(), "--within", 0.3)
    assert "no worker has taken it up yet" in said.err


def test_the_same_key_and_input_start_once_and_another_input_is_a_conflict(saga: Prompt) -> None:
    first = saga("start", "shop", "--input", order(5), "--key", "k")
    again = saga("start", "shop", "--input", order(5), "--key", "k")
    other = saga("start", "shop", "--input", order(6), "--key", "k", "--json")
    assert first.out == again.out
    assert other.code == 4
    assert first.out.strip() in other.error["message"]
    assert len(saga("list", "--json").json) == 1


def test_json_lines_start_many_under_the_keys_of_a_field(saga: Prompt, tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(f"{order(n, f'o{n}')}\n" for n in range(1, 1202)), "utf-8")
    told = saga("start", "shop", "--input", f"@{path}", "--key-field", "order_id", "--json").json
    assert told["started"] == len(set(told["ids"])) == 1201
    again = saga("start", "shop", "--input", f"@{path}", "--key-field", "order_id")
    assert again.out.split() == told["ids"]
    keys = {row["key"] for row in saga("list", "--limit", 5000, "--json").json}
    assert keys == {f"o{n}" for n in range(1, 1202)}


@pytest.mark.usefixtures("working")
def test_many_are_waited_for_and_counted(saga: Prompt, tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text(f"{order(1)}\n{order(2)}\n{order(5000)}\n", "utf-8")
    said = saga("start", "shop", "--input", f"@{path}", "--wait")
    assert (said.code, said.out) == (1, "1 compensated, 2 completed\n")


def test_a_bad_line_is_named_and_nothing_of_the_file_is_stored(
    saga: Prompt, tmp_path: Path
) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text(f"{order(1)}\n\n{order(2)}\n{order(-1)}\nnot json\n", "utf-8")
    said = saga("start", "shop", "--input", f"@{path}", "--json")
    assert said.code == 2
    assert "line 4" in said.error["message"]
    assert said.error["problems"] == ["amount: Input should be greater than 0"]
    assert saga("list", "--json").json == []


def test_standard_input_and_a_file_of_one_text_over_many_lines_are_read(
    saga: Prompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(order().encode())))
    assert saga("start", "shop", "--input", "-").code == 0
    path = tmp_path / "order.json"
    path.write_text('\ufeff{\n  "order_id": "a",\n  "amount": 1\n}\n', "utf-8")
    assert len(saga("start", "shop", "--input", f"@{path}").out.split()) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "JSON"),
        ("{bad", "JSON"),
        ("[" * 5000 + "]" * 5000, "recursion"),
        ("null", "Order"),
        ('{"order_id": "a"}', "amount: Field required"),
        ('{"order_id": "a", "amount": "many"}', "amount: Input should be a valid integer"),
        ('{"order_id": "a", "amount": 1, "colour": "red"}', "colour: Extra inputs"),
        ('{"order_id": "\udcff", "amount": 1}', "unicode"),
        ("@nowhere.json", "nowhere.json"),
        (f"@{__file__}/x", "Not a directory"),
    ],
)
def test_a_wrong_input_is_told_field_by_field(saga: Prompt, text: str, problem: str) -> None:
    said = saga("start", "shop", "--input", text)
    assert (said.code, said.out) == (2, "")
    assert problem in said.err
    assert "Traceback" not in said.err
    assert saga("start", "shop", "--input", text, "--json").error["exit_code"] == 2


def test_each_problem_has_a_line_and_is_told_once(saga: Prompt) -> None:
    said = saga("start", "shop", "--input", '{"order_id": "", "amount": 0}')
    lines = said.err.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["error", "order_id", "amount"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--key", ""),
        ("--key", "a\x1b[31m"),
        ("--key", "x" * 501),
        ("--key-field", "nope"),
        ("--user", "\udcff"),
        ("--within", "soon"),
    ],
)
def test_a_wrong_option_is_refused_and_nothing_is_stored(
    saga: Prompt, flags: tuple[str, str]
) -> None:
    said = saga("start", "shop", "--input", order(), *flags, "--json")
    assert said.error["exit_code"] == 2
    assert "\x1b" not in said.err
    assert saga("list", "--json").json == []


@pytest.mark.parametrize(
    ("typed", "nearest"), [(("shp",), ["shop"]), (("shop", "--version", "7"), None)]
)
def test_an_unknown_saga_is_answered_with_the_nearest(
    saga: Prompt, typed: tuple[str, ...], nearest: list[str] | None
) -> None:
    error = saga("start", *typed, "--input", order(), "--json").error
    assert error["exit_code"] == 3
    assert error.get("nearest") == nearest


def test_a_module_that_is_not_there_or_holds_no_saga_is_named(saga: Prompt) -> None:
    for module in ("no_such_module", "tests.faces.cli.prompt"):
        said = saga("start", "shop", "--input", "1", "--sagas", module)
        assert said.code == 3
        assert module in said.err


def test_a_cancel_undoes_what_was_done_and_records_who_and_why(
    saga: Prompt, working: Running
) -> None:
    saga_id = saga("start", "patient", "--input", order()).out.strip()
    shown = status_of(saga, saga_id, "waiting")
    assert shown["waits_for"].startswith("the time: ")
    assert "busy" in shown["last_failure"]
    assert saga("cancel", saga_id[:30], "--reason", "why not", "--actor", "ann").code == 0
    assert saga("watch", saga_id).code == 1
    assert "hold_it" in saga("show", saga_id).out.partition("↩")[2]
    assert "ann cancelled it: why not" in saga("history", saga_id).out
    late = saga("cancel", saga_id, "--json")
    assert late.error["error"] == "TooLateError"
    assert late.code == 4


def test_a_cancel_of_nothing_is_not_found(saga: Prompt) -> None:
    assert saga("cancel", UNKNOWN_ID, "--json").error["exit_code"] == 3

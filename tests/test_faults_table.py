"""The table of faults is complete, and every test that it names exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
NONE = "not covered yet: "

ROWS = {
    int(number): (fault, promise, proof)
    for number, fault, promise, proof in ROW.findall((TESTS / "FAULTS.md").read_text("utf-8"))
}


@cache
def _tests_of(path: str) -> set[str]:
    """The tests that a module below `tests` has."""
    text = (TESTS / path).read_text("utf-8")
    return set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))


def test_every_fault_stands_in_the_table_once_and_in_order() -> None:
    lines = re.findall(r"^\| (\d+) \|", (TESTS / "FAULTS.md").read_text("utf-8"), re.MULTILINE)

    assert [int(number) for number in lines] == list(range(1, 101))
    assert list(ROWS) == list(range(1, 101)), "a row does not have four columns"


@pytest.mark.parametrize("number", ROWS)
def test_a_row_names_tests_that_exist_or_says_why_there_is_none(number: int) -> None:
    proof = ROWS[number][2]
    named = NAMED.findall(proof)

    assert bool(named) != proof.startswith(NONE), proof
    assert len(named) == proof.count("::"), "a test is named as `path.py::test_name`"
    missing = [f"{path}::{name}" for path, name in named if name not in _tests_of(path)]
    assert missing == []
    assert proof.removeprefix(NONE).strip()

"""The hash chain: whatever is changed is noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.chain import genesis, link

AT = datetime(2024, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
ROW: dict[str, Any] = {
    "previous": genesis("s1"),
    "saga_id": "s1",
    "version": 1,
    "type_": "StepSucceeded",
    "node": "order/0",
    "attempt": 1,
    "epoch": 3,
    "recorded_at": AT,
    "meta": '{"user_id":"ann"}',
    "data": '{"output":7}',
}


def test_the_formula_never_changes() -> None:
    assert link(**ROW).hex() == "3144c9d12f990cd7d86f0112ec760bfeaeaa97301d18f3b87ca90a4bee68ed4d"


def test_instances_begin_with_different_hashes() -> None:
    assert genesis("s1") != genesis("s2")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("previous", genesis("s2")),
        ("saga_id", "s2"),
        ("version", 2),
        ("type_", "StepFailed"),
        ("node", "order/1"),
        ("attempt", 2),
        ("epoch", 4),
        ("recorded_at", AT + timedelta(microseconds=1)),
        ("meta", "{}"),
        ("data", '{"output":8}'),
        ("data", '{"output": 7}'),
    ],
)
def test_every_column_is_part_of_the_hash(column: str, value: Any) -> None:
    assert link(**{**ROW, column: value}) != link(**ROW)


def test_the_same_moment_in_another_zone_is_the_same_hash() -> None:
    from datetime import timezone

    elsewhere = AT.astimezone(timezone(timedelta(hours=5)))
    assert link(**{**ROW, "recorded_at": elsewhere}) == link(**ROW)


@given(st.text(), st.text(), st.integers(0, 20))
def test_moving_text_between_meta_and_data_is_noticed(meta: str, data: str, cut: int) -> None:
    text = meta + data
    moved = {**ROW, "meta": text[:cut], "data": text[cut:]}
    same = text[:cut] == meta
    assert (link(**moved) == link(**{**ROW, "meta": meta, "data": data})) is same

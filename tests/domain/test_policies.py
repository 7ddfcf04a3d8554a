"""Arithmetic of waiting."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.policies import Backoff, UndoPolicy, seconds

waits = st.floats(0, 1e6).map(lambda value: timedelta(seconds=value))


def test_numbers_are_seconds_and_timedeltas_stay() -> None:
    assert seconds(1.5) == timedelta(seconds=1.5)
    assert seconds(timedelta(hours=1)) == timedelta(hours=1)


def test_by_default_three_retries_wait_one_two_and_four_seconds_before_jitter() -> None:
    backoff = Backoff(jitter=False)
    assert [backoff.delay(n, "k").total_seconds() for n in (1, 2, 3)] == [1, 2, 4]


def test_a_compensation_is_tried_for_a_day_without_a_limit_of_its_own() -> None:
    policy = UndoPolicy()
    assert (policy.max_retries, policy.give_up_after) == (None, timedelta(hours=24))


@given(waits, st.floats(1, 1e300), waits, st.integers(1, 10**9), st.text())
def test_a_wait_is_never_negative_and_never_above_the_cap(
    initial: timedelta, factor: float, cap: timedelta, retry: int, key: str
) -> None:
    delay = Backoff(initial, factor, cap).delay(retry, key)
    assert timedelta(0) <= delay <= cap


@given(st.floats(1, 100), st.integers(1, 400))
def test_without_jitter_it_is_initial_times_factor_to_the_n_or_the_cap(
    factor: float, retry: int
) -> None:
    backoff = Backoff(timedelta(seconds=1), factor, timedelta(hours=1), jitter=False)
    delay = backoff.delay(retry, "k").total_seconds()
    exact = min(factor ** min(retry - 1, 150), 3600.0)
    assert delay == pytest.approx(exact, abs=1e-5) or retry > 150


def test_a_slow_growth_reaches_the_cap_too() -> None:
    backoff = Backoff(factor=1.01, jitter=False)
    assert backoff.delay(1_000, "k") == timedelta(seconds=60)


def test_a_wait_of_nothing_stays_nothing() -> None:
    assert Backoff(timedelta(0), factor=1e300).delay(10, "k") == timedelta(0)


@given(st.integers(1, 50), st.text())
def test_jitter_only_shortens_and_at_most_by_half(retry: int, key: str) -> None:
    whole = Backoff(jitter=False).delay(retry, key)
    assert whole / 2 <= Backoff().delay(retry, key) <= whole


@given(st.integers(1, 50), st.text())
def test_jitter_is_the_same_when_it_is_planned_again(retry: int, key: str) -> None:
    assert Backoff().delay(retry, key) == Backoff().delay(retry, key)


def test_jitter_differs_between_sagas_and_between_retries() -> None:
    delays = {Backoff(factor=1).delay(n, key) for n in range(1, 20) for key in ("a", "b")}
    assert len(delays) == 38

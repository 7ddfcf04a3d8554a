"""Arithmetic of policies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.policies import (
    GLANCE,
    LATE,
    Backoff,
    Bucket,
    BudgetRule,
    Circuit,
    CircuitState,
    Rate,
    UndoPolicy,
    bucket_after,
    circuit_after,
    held_by_circuit,
    look_again,
    period_start,
    seconds,
    spent_after,
)

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


# ---------------------------------------------------------------------------- shared by name

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
moments = st.timedeltas(timedelta(0), timedelta(days=3)).map(lambda value: NOON + value)
TEN = Rate("bank", 10, timedelta(seconds=1))
rates = st.builds(
    Rate,
    st.just("bank"),
    st.integers(1, 1000),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=2)),
)


def test_so_many_failures_in_a_row_open_a_circuit_and_a_success_ends_the_row() -> None:
    circuit, state = Circuit("bank", failures=3), CircuitState()
    for succeeded in (False, False, True, False, False):
        state = circuit_after(circuit, state, NOON, succeeded=succeeded)
    assert state == CircuitState(failed=2)
    assert circuit_after(circuit, state, NOON, succeeded=False) == CircuitState(3, 0, NOON)


def test_a_report_while_a_circuit_is_open_says_nothing() -> None:
    circuit, state = Circuit("bank", reset=MINUTE), CircuitState(5, 0, NOON)
    for succeeded in (True, False):
        assert circuit_after(circuit, state, NOON + 0.9 * MINUTE, succeeded=succeeded) == state


def test_a_half_open_circuit_closes_after_its_probes_and_opens_at_a_failure() -> None:
    circuit, state, then = (
        Circuit("bank", reset=MINUTE, probes=2),
        CircuitState(5, 0, NOON),
        NOON + MINUTE,
    )
    passed = circuit_after(circuit, state, then, succeeded=True)
    assert passed == CircuitState(5, 1, NOON)
    assert circuit_after(circuit, passed, then, succeeded=True) == CircuitState()
    assert circuit_after(circuit, passed, then, succeeded=False) == CircuitState(6, 0, then)


@given(moments)
def test_a_closed_circuit_holds_nobody(now: datetime) -> None:
    assert held_by_circuit(Circuit("bank", failures=9), CircuitState(8), [], now) is None


def test_an_open_circuit_holds_until_its_reset_and_then_admits_its_probes() -> None:
    circuit, state = Circuit("bank", reset=MINUTE, probes=2), CircuitState(5, 0, NOON)
    then = NOON + MINUTE
    assert held_by_circuit(circuit, state, [], NOON) == then
    assert held_by_circuit(circuit, state, [then], then) is None
    assert held_by_circuit(circuit, state, [then, then], then) == then + GLANCE
    assert held_by_circuit(circuit, state, [then, then], then + MINUTE) is None


@given(moments, moments, moments)
def test_who_waits_looks_again_after_as_long_again_at_most_until_it_is_over(
    one: datetime, two: datetime, three: datetime
) -> None:
    since, now, over = sorted((one, two, three))
    again = look_again(since, now, over)
    assert again == over or again - now == max(now - since, GLANCE)
    assert again <= over


@given(rates, st.lists(st.tuples(moments, st.booleans()), max_size=60).map(sorted))
def test_in_no_stretch_of_a_period_does_a_bucket_give_more_than_twice_its_calls(
    rate: Rate, asked: list[tuple[datetime, bool]]
) -> None:
    given_at: list[datetime] = []
    bucket: Bucket | None = None
    for now, waited in asked:
        bucket, until = bucket_after(rate, bucket, now, now if waited else None)
        if until is None:
            given_at.append(now)
    for begin in given_at:
        within = [at for at in given_at if begin <= at < begin + rate.per]
        # What it held at the beginning, and what it was filled with meanwhile.
        assert len(within) <= 2 * rate.calls


@given(rates, moments)
def test_a_full_bucket_gives_its_calls_at_once_and_then_one_when_it_said(
    rate: Rate, now: datetime
) -> None:
    bucket = emptied(rate, now)
    bucket, until = bucket_after(rate, bucket, now)
    assert until == now + rate.each
    if rate.each > timedelta(microseconds=1):
        early = until - timedelta(microseconds=1)
        assert bucket_after(rate, bucket, early, until)[1] == until
    bucket, none = bucket_after(rate, bucket, until, until)
    assert none is None
    assert bucket_after(rate, bucket, until)[1] == until + rate.each


@given(rates, moments, st.integers(1, 40))
def test_each_that_waits_gets_a_turn_of_its_own_and_then_may_go(
    rate: Rate, now: datetime, count: int
) -> None:
    bucket: Bucket | None = emptied(rate, now)
    turns: list[datetime] = []
    for _ in range(count):
        bucket, until = bucket_after(rate, bucket, now)
        assert until is not None
        turns.append(until)

    assert turns == [now + n * rate.each for n in range(1, count + 1)]
    for turn in turns:
        bucket, until = bucket_after(rate, bucket, turn, turn)
        assert until is None


def test_who_comes_now_goes_behind_the_line_even_where_a_call_is_left_for_it() -> None:
    bucket = emptied(TEN, NOON)
    for _ in range(3):
        bucket, _ = bucket_after(TEN, bucket, NOON)

    # The first in the line is a little late.
    at = NOON + TEN.each + timedelta(milliseconds=50)
    bucket, newcomer = bucket_after(TEN, bucket, at)

    assert newcomer == NOON + 4 * TEN.each
    assert bucket_after(TEN, bucket, at, NOON + TEN.each)[1] is None


def test_those_who_come_late_in_a_crowd_get_a_turn_each_when_the_bucket_is_empty() -> None:
    bucket: Bucket | None = emptied(TEN, NOON)
    late = NOON + timedelta(hours=1)
    answers = []
    for _ in range(30):
        bucket, until = bucket_after(TEN, bucket, late, NOON + TEN.each)
        answers.append(until)

    assert answers == [None] * 10 + [late + n * TEN.each for n in range(1, 21)]


def test_a_line_whose_turns_nobody_uses_is_left_behind() -> None:
    bucket: Bucket | None = emptied(TEN, NOON)
    for _ in range(1_000):
        bucket, until = bucket_after(TEN, bucket, NOON)

    full = NOON + TEN.per
    bucket, until = bucket_after(TEN, bucket, full + LATE - timedelta(milliseconds=1))
    assert until == NOON + 1_001 * TEN.each, "somebody may still come"
    bucket, until = bucket_after(TEN, bucket, full + LATE)
    assert until is None


def test_a_changed_rule_moves_the_line_accordingly() -> None:
    daily = Rate("bank", 1, timedelta(days=1))
    bucket = emptied(daily, NOON)
    for _ in range(100):
        bucket, until = bucket_after(daily, bucket, NOON)
    assert until == NOON + timedelta(days=100)

    _, until = bucket_after(TEN, bucket, NOON)

    assert until == NOON + 101 * TEN.each


def test_a_bucket_that_a_stricter_rule_emptied_owes_no_more_than_its_own() -> None:
    daily = Rate("bank", 1, timedelta(days=1))
    bucket = emptied(daily, NOON)
    assert bucket.full_at == NOON + timedelta(days=1)
    bucket, until = bucket_after(Rate("bank", 6, MINUTE), bucket, NOON)
    assert (bucket.full_at, until) == (NOON + MINUTE, NOON + timedelta(seconds=10))


def emptied(rate: Rate, now: datetime) -> Bucket:
    """A bucket that all calls were taken out of, just now."""
    bucket: Bucket | None = None
    for _ in range(rate.calls):
        bucket, until = bucket_after(rate, bucket, now)
        assert until is None
    assert bucket is not None
    return bucket


@given(moments, st.timedeltas(timedelta(seconds=1), timedelta(days=400)))
def test_periods_of_a_budget_follow_each_other_from_1970_on(now: datetime, per: timedelta) -> None:
    budget = BudgetRule("llm", 1.0, per)
    begun = period_start(budget, now)
    assert begun <= now < begun + per
    assert (begun - datetime(1970, 1, 1, tzinfo=UTC)) % per == timedelta(0)
    assert period_start(budget, begun + per) == begun + per


def test_a_budget_without_a_period_began_in_1970() -> None:
    assert period_start(BudgetRule("llm", 1.0), NOON) == datetime(1970, 1, 1, tzinfo=UTC)


def test_what_was_spent_adds_up_in_its_period_and_begins_anew_in_the_next() -> None:
    later = NOON + MINUTE
    assert spent_after(2.0, NOON, 1.0, NOON) == (3.0, NOON)
    assert spent_after(2.0, NOON, 1.0, later) == (1.0, later)
    assert spent_after(2.0, later, 1.0, NOON) == (3.0, later)

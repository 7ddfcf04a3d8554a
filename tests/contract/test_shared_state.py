"""What every shared state promises of circuits, rates, caches and budgets."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from orchestrator.domain.events import Json
from orchestrator.domain.policies import GLANCE, BudgetRule, CacheRule, Circuit, Rate
from orchestrator.errors import InvalidInputError
from orchestrator.ports import Held, Hit, SharedState
from tests.contract.worlds import World, in_memory, in_redis, manual_clock, on_postgres

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
BANK = Circuit("bank", failures=3, reset=10 * MINUTE, probes=2)
CALLS = Rate("bank", calls=7, per=10 * MINUTE)
RATES = CacheRule("rates", ttl=10 * MINUTE, max_size=3)
MONEY = BudgetRule("llm", limit=5.0, per=timedelta(days=1000))
PATIENCE = 5 * MINUTE


@pytest.fixture(
    params=["memory", "dsn", "pg15_dsn", "redis_url"],
    ids=["memory", "postgres18", "postgres15", "redis"],
)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Shared state as two processes have it."""
    if request.param == "memory":
        yield in_memory(manual_clock())
        return
    address = request.getfixturevalue(request.param)
    is_redis = request.param == "redis_url"
    async with in_redis(address, manual_clock()) if is_redis else on_postgres(address) as found:
        yield found


async def fail(shared: SharedState, times: int, circuit: Circuit = BANK) -> None:
    for _ in range(times):
        await shared.report(circuit, succeeded=False)


async def half_open(world: World, circuit: Circuit = BANK) -> None:
    await fail(world.shared, circuit.failures, circuit)
    await world.later(circuit.reset)


def until(answer: object) -> datetime:
    assert isinstance(answer, Held), answer
    return answer.until


# ---------------------------------------------------------------------------- circuits


async def test_a_circuit_that_nobody_knows_lets_calls_through(world: World) -> None:
    assert await world.at_once(20, lambda side, _: side.admit(BANK)) == [None] * 20


async def test_a_circuit_opens_after_so_many_failures_in_a_row(world: World) -> None:
    await fail(world.shared, 2)
    assert await world.other.admit(BANK) is None

    await fail(world.other, 1)

    assert isinstance(await world.shared.admit(BANK), Held)
    assert isinstance(await world.other.admit(BANK), Held)


async def test_a_circuit_of_one_failure_opens_at_the_first(world: World) -> None:
    circuit = replace(BANK, failures=1)
    await fail(world.shared, 1, circuit)
    assert isinstance(await world.other.admit(circuit), Held)


async def test_failures_at_the_same_time_all_count(world: World) -> None:
    circuit = replace(BANK, failures=20)
    await world.at_once(19, lambda side, _: side.report(circuit, succeeded=False))
    assert await world.shared.admit(circuit) is None

    await fail(world.shared, 1, circuit)

    assert isinstance(await world.shared.admit(circuit), Held)


async def test_a_success_ends_the_row_of_failures(world: World) -> None:
    await fail(world.shared, 2)
    await world.other.report(BANK, succeeded=True)
    await fail(world.shared, 2)

    assert await world.shared.admit(BANK) is None

    await fail(world.shared, 1)
    assert isinstance(await world.shared.admit(BANK), Held)


async def test_an_open_circuit_holds_calls_until_its_reset(world: World) -> None:
    await fail(world.shared, 2)
    before = await world.now()
    await fail(world.shared, 1)
    after = await world.now()

    assert before + BANK.reset <= until(await world.other.admit(BANK)) <= after + BANK.reset
    await world.later(BANK.reset - MINUTE)
    assert isinstance(await world.other.admit(BANK), Held)
    await world.later(MINUTE)
    assert await world.other.admit(BANK) is None


async def test_what_a_straggler_reports_while_a_circuit_is_open_says_nothing(world: World) -> None:
    await fail(world.shared, 3)
    opened = until(await world.shared.admit(BANK))

    for succeeded in (True, True, True, False):
        await world.shared.report(BANK, succeeded=succeeded)

    assert until(await world.shared.admit(BANK)) == opened


async def test_a_half_open_circuit_admits_its_probes_and_no_more(world: World) -> None:
    await half_open(world)

    answers = await world.at_once(20, lambda side, _: side.admit(BANK))

    assert sum(answer is None for answer in answers) == BANK.probes
    assert sum(isinstance(answer, Held) for answer in answers) == 20 - BANK.probes


async def test_who_is_held_by_probes_looks_again_soon_and_later_more_rarely(world: World) -> None:
    await half_open(world)
    assert [await world.shared.admit(BANK) for _ in range(2)] == [None, None]

    at = await world.now()
    assert at + GLANCE <= until(await world.shared.admit(BANK)) < at + MINUTE
    await world.later(4 * MINUTE)
    at = await world.now()
    assert at + 4 * MINUTE <= until(await world.shared.admit(BANK)) < at + 5 * MINUTE
    await world.later(4 * MINUTE)
    at = await world.now()
    assert at + MINUTE < until(await world.shared.admit(BANK)) <= at + 2 * MINUTE


async def test_a_probe_that_never_reports_is_forgotten_after_another_reset(world: World) -> None:
    await half_open(world)
    assert await world.shared.admit(BANK) is None
    await world.later(BANK.reset / 2)
    assert await world.shared.admit(BANK) is None
    assert isinstance(await world.other.admit(BANK), Held)

    await world.later(BANK.reset / 2)

    answers = await world.at_once(20, lambda side, _: side.admit(BANK))
    assert sum(answer is None for answer in answers) == 1


async def test_a_probe_that_reports_makes_room_for_the_next(world: World) -> None:
    circuit = replace(BANK, probes=3)
    await half_open(world, circuit)
    for _ in range(3):
        assert await world.shared.admit(circuit) is None
    assert isinstance(await world.shared.admit(circuit), Held)

    await world.shared.report(circuit, succeeded=True)

    assert await world.other.admit(circuit) is None
    assert isinstance(await world.other.admit(circuit), Held)


async def test_enough_probes_that_succeed_close_a_circuit(world: World) -> None:
    await half_open(world)
    await world.shared.report(BANK, succeeded=True)
    answers = await world.at_once(5, lambda side, _: side.admit(BANK))
    assert sum(answer is None for answer in answers) == BANK.probes

    await world.other.report(BANK, succeeded=True)

    assert await world.at_once(20, lambda side, _: side.admit(BANK)) == [None] * 20
    await fail(world.shared, 2)
    assert await world.shared.admit(BANK) is None


async def test_a_probe_that_fails_opens_a_circuit_again(world: World) -> None:
    await half_open(world)
    await world.shared.report(BANK, succeeded=True)
    before = await world.now()
    await world.shared.report(BANK, succeeded=False)

    assert until(await world.other.admit(BANK)) >= before + BANK.reset
    await world.later(BANK.reset)

    answers = await world.at_once(5, lambda side, _: side.admit(BANK))
    assert sum(answer is None for answer in answers) == BANK.probes


async def test_successes_before_a_circuit_opened_again_do_not_help_to_close_it(
    world: World,
) -> None:
    await half_open(world)
    for succeeded in (True, False):
        await world.shared.report(BANK, succeeded=succeeded)
    await world.later(BANK.reset)

    await world.shared.report(BANK, succeeded=True)

    answers = await world.at_once(5, lambda side, _: side.admit(BANK))
    assert sum(answer is None for answer in answers) == BANK.probes


async def test_circuits_of_other_names_are_other_circuits(world: World) -> None:
    await fail(world.shared, 3)
    assert await world.shared.admit(replace(BANK, name="post")) is None


# ---------------------------------------------------------------------------- rates


async def test_a_bucket_gives_what_it_holds_and_no_more(world: World) -> None:
    answers = await world.at_once(50, lambda side, _: side.reserve(CALLS))

    assert sum(answer is None for answer in answers) == CALLS.calls
    assert sum(isinstance(answer, Held) for answer in answers) == 50 - CALLS.calls


async def test_a_held_call_is_told_when_the_next_may_be_and_then_it_may(world: World) -> None:
    before = await world.now()
    await world.at_once(CALLS.calls, lambda side, _: side.reserve(CALLS))

    told = until(await world.shared.reserve(CALLS))

    now = await world.now()
    assert before + CALLS.each <= told <= now + CALLS.each
    await world.later(told - now - 20 * SECOND)
    early = await world.now() + 20 * SECOND
    assert await world.other.reserve(CALLS, early) == Held(early), "it keeps its turn"
    await world.later(20 * SECOND)
    assert await world.other.reserve(CALLS, await world.now()) is None
    assert isinstance(await world.shared.reserve(CALLS), Held)


async def test_each_that_is_held_is_told_a_turn_of_its_own(world: World) -> None:
    await world.at_once(CALLS.calls, lambda side, _: side.reserve(CALLS))

    answers = await world.at_once(20, lambda side, _: side.reserve(CALLS))

    turns = sorted(map(until, answers))
    assert {later - turn for turn, later in itertools.pairwise(turns)} == {CALLS.each}


async def test_those_whose_turns_came_together_share_what_is_there_and_line_up_again(
    world: World,
) -> None:
    await world.at_once(CALLS.calls + 20, lambda side, _: side.reserve(CALLS))
    await world.later(21 * CALLS.each)
    turn = await world.now()

    answers = await world.at_once(20, lambda side, _: side.reserve(CALLS, turn))

    assert answers.count(None) == CALLS.calls
    turns = sorted(until(answer) for answer in answers if answer is not None)
    assert {later - turn for turn, later in itertools.pairwise(turns)} == {CALLS.each}


async def test_who_always_comes_early_gets_through_as_soon_as_a_call_is_left(world: World) -> None:
    await world.at_once(CALLS.calls + 1, lambda side, _: side.reserve(CALLS))
    ahead = await world.now() + timedelta(days=1)
    assert await world.shared.reserve(CALLS, ahead) == Held(ahead)

    await world.later(CALLS.each)

    assert await world.shared.reserve(CALLS, ahead) is None


async def test_who_comes_now_goes_behind_those_who_wait(world: World) -> None:
    await world.at_once(CALLS.calls + 2, lambda side, _: side.reserve(CALLS))
    await world.later(CALLS.each)
    now = await world.now()

    newcomer = until(await world.shared.reserve(CALLS))

    assert abs(newcomer - now - 2 * CALLS.each) < SECOND
    assert await world.other.reserve(CALLS, now) is None


async def test_a_line_that_nobody_comes_from_holds_nobody_up(world: World) -> None:
    for _ in range(CALLS.calls):
        assert await world.shared.reserve(CALLS) is None
    await world.at_once(50, lambda side, _: side.reserve(CALLS))

    await world.later(CALLS.per + 2 * SECOND)
    assert isinstance(await world.shared.reserve(CALLS), Held)
    await world.later(4 * SECOND)
    assert await world.shared.reserve(CALLS) is None


async def test_a_bucket_fills_with_time_and_never_over_its_brim(world: World) -> None:
    await world.at_once(CALLS.calls, lambda side, _: side.reserve(CALLS))
    await world.later(3 * CALLS.each)
    answers = await world.at_once(10, lambda side, _: side.reserve(CALLS))
    assert sum(answer is None for answer in answers) == 3

    await world.later(5 * CALLS.per)

    answers = await world.at_once(20, lambda side, _: side.reserve(CALLS))
    assert sum(answer is None for answer in answers) == CALLS.calls


async def test_a_rate_that_was_made_more_generous_is_so_at_once(world: World) -> None:
    daily = Rate("bank", calls=1, per=timedelta(days=1))
    assert await world.shared.reserve(daily) is None
    asked = await world.now()

    told = until(await world.shared.reserve(CALLS))

    assert told <= await world.now() + CALLS.each
    assert told >= asked
    await world.later(CALLS.each)
    assert await world.shared.reserve(CALLS) is None


async def test_rates_of_other_names_are_other_buckets(world: World) -> None:
    await world.at_once(CALLS.calls, lambda side, _: side.reserve(CALLS))
    assert await world.shared.reserve(replace(CALLS, name="post")) is None


# ---------------------------------------------------------------------------- caches


async def test_one_of_many_that_look_up_at_once_is_to_compute(world: World) -> None:
    answers = await world.at_once(20, lambda side, n: side.look_up(RATES, "eur", f"h{n}", PATIENCE))

    assert sum(answer is None for answer in answers) == 1
    assert sum(isinstance(answer, Held) for answer in answers) == 19


async def test_one_of_many_is_to_compute_again_what_has_gone_stale(world: World) -> None:
    await computed(world, "eur", "1")
    await world.later(RATES.ttl)

    answers = await world.at_once(20, lambda side, n: side.look_up(RATES, "eur", f"h{n}", PATIENCE))

    assert sum(answer is None for answer in answers) == 1
    assert sum(isinstance(answer, Held) for answer in answers) == 19


async def computed(world: World, key: str, output: str, rule: CacheRule = RATES) -> None:
    """Something has been computed and kept."""
    assert await world.shared.look_up(rule, key, "maker", PATIENCE) is None
    await world.shared.keep(rule, key, "maker", Json(output))


async def hits(world: World, *keys: str, rule: CacheRule = RATES) -> list[bool]:
    """Which keys have a fresh output; the turns that were got by asking are given up."""
    found = []
    for key in keys:
        answer = await world.other.look_up(rule, key, "asker", PATIENCE)
        found.append(isinstance(answer, Hit))
        await world.other.let_go(rule, key, "asker")
    return found


@pytest.mark.parametrize("output", ["null", '""', "[]", "0", '{"a": 1.50,  "ü": "\\u0000"}'])
async def test_what_was_kept_is_found_to_the_letter(world: World, output: str) -> None:
    await computed(world, "eur", output)

    answers = await world.at_once(5, lambda side, n: side.look_up(RATES, "eur", f"h{n}", PATIENCE))

    assert answers == [Hit(Json(output))] * 5


async def test_keys_are_told_apart_however_long_they_are(world: World) -> None:
    long = '"' + "x" * 10_000 + '"'
    await computed(world, long, "1")

    assert await hits(world, long, f"{long} ", "") == [True, False, False]
    assert await hits(world, long, rule=replace(RATES, name="other")) == [False]


async def test_an_output_is_fresh_for_its_ttl(world: World) -> None:
    await computed(world, "eur", "1")
    await world.later(RATES.ttl - SECOND)
    assert await hits(world, "eur") == [True]

    await world.later(SECOND)

    assert await hits(world, "eur") == [False]


async def test_an_output_that_is_computed_anew_is_fresh_again(world: World) -> None:
    await computed(world, "eur", "1")
    await world.later(RATES.ttl)
    await computed(world, "eur", "2")
    await world.later(RATES.ttl - SECOND)

    assert await world.other.look_up(RATES, "eur", "h", PATIENCE) == Hit(Json("2"))


async def test_the_oldest_outputs_over_the_size_are_dropped(world: World) -> None:
    for key in "abcde":
        await computed(world, key, "1")
        await world.later(SECOND)

    assert await hits(world, *"abcde") == [False, False, True, True, True]


async def test_the_oldest_is_the_one_that_was_kept_longest_ago(world: World) -> None:
    rule = replace(RATES, ttl=MINUTE)
    for key in "abc":
        await computed(world, key, "1", rule)
        await world.later(10 * SECOND)
    await world.later(30 * SECOND)
    await computed(world, "a", "2", rule)
    await computed(world, "d", "1", rule)

    assert await hits(world, *"abcd", rule=replace(rule, ttl=10 * MINUTE)) == [
        True, False, True, True
    ]  # fmt: skip


async def test_other_caches_do_not_count_towards_the_size(world: World) -> None:
    await computed(world, "a", "1")
    for key in "abcde":
        await computed(world, key, "1", replace(RATES, name="other"))

    assert await hits(world, "a") == [True]


async def test_who_lets_go_lets_the_next_in_at_once(world: World) -> None:
    assert await world.shared.look_up(RATES, "eur", "one", PATIENCE) is None
    assert isinstance(await world.other.look_up(RATES, "eur", "two", PATIENCE), Held)

    await world.shared.let_go(RATES, "eur", "one")

    assert await world.other.look_up(RATES, "eur", "two", PATIENCE) is None


async def test_nobody_lets_go_for_another(world: World) -> None:
    assert await world.shared.look_up(RATES, "eur", "one", PATIENCE) is None
    await world.other.let_go(RATES, "eur", "two")
    assert isinstance(await world.other.look_up(RATES, "eur", "two", PATIENCE), Held)

    await world.shared.keep(RATES, "eur", "one", Json("1"))
    await world.shared.let_go(RATES, "eur", "one")

    assert await world.other.look_up(RATES, "eur", "two", PATIENCE) == Hit(Json("1"))


async def test_a_silent_holder_loses_its_turn(world: World) -> None:
    assert await world.shared.look_up(RATES, "eur", "one", PATIENCE) is None
    await world.later(PATIENCE - SECOND)
    assert isinstance(await world.other.look_up(RATES, "eur", "two", PATIENCE), Held)

    await world.later(SECOND)

    answers = await world.at_once(20, lambda side, n: side.look_up(RATES, "eur", f"h{n}", PATIENCE))
    assert sum(answer is None for answer in answers) == 1


async def test_who_has_lost_its_turn_stores_nothing(world: World) -> None:
    assert await world.shared.look_up(RATES, "eur", "one", PATIENCE) is None
    await world.later(PATIENCE)
    assert await world.other.look_up(RATES, "eur", "two", PATIENCE) is None

    await world.shared.keep(RATES, "eur", "one", Json('"late"'))
    await world.shared.let_go(RATES, "eur", "one")

    assert isinstance(await world.shared.look_up(RATES, "eur", "three", PATIENCE), Held)
    await world.other.keep(RATES, "eur", "two", Json('"good"'))
    assert await world.shared.look_up(RATES, "eur", "three", PATIENCE) == Hit(Json('"good"'))


async def test_who_never_had_a_turn_drops_nothing_either(world: World) -> None:
    for key in "abc":
        await computed(world, key, "1")

    await world.shared.keep(RATES, "d", "nobody", Json("1"))

    assert await hits(world, *"abcd") == [True, True, True, False]


async def test_a_holder_that_asks_again_has_its_turn_again(world: World) -> None:
    assert await world.shared.look_up(RATES, "eur", "one", PATIENCE) is None
    await world.later(PATIENCE - SECOND)
    assert await world.other.look_up(RATES, "eur", "one", PATIENCE) is None
    await world.later(PATIENCE - SECOND)

    assert isinstance(await world.shared.look_up(RATES, "eur", "two", PATIENCE), Held)


async def test_who_waits_for_a_holder_looks_again_soon_and_later_more_rarely(world: World) -> None:
    async def told() -> datetime:
        return until(await world.other.look_up(RATES, "eur", "two", PATIENCE))

    assert await world.shared.look_up(RATES, "eur", "one", PATIENCE) is None

    at = await world.now()
    assert at + GLANCE <= await told() < at + MINUTE
    await world.later(2 * MINUTE)
    at = await world.now()
    assert at + 2 * MINUTE <= await told() < at + 2.5 * MINUTE
    await world.later(2 * MINUTE)
    assert await told() <= await world.now() + MINUTE


# ---------------------------------------------------------------------------- budgets


async def test_what_was_spent_adds_up(world: World) -> None:
    assert await world.shared.spent(MONEY) == 0.0

    await world.at_once(20, lambda side, n: side.spend(MONEY, 0.25, f"r{n}"))

    assert await world.shared.spent(MONEY) == 5.0
    assert await world.other.spent(MONEY) == 5.0
    assert await world.other.spent(replace(MONEY, name="post")) == 0.0


async def test_a_receipt_counts_once(world: World) -> None:
    await world.at_once(20, lambda side, _: side.spend(MONEY, 1.5, "r1"))
    await world.shared.spend(replace(MONEY, name="post"), 1.0, "r1")
    assert await world.shared.spent(MONEY) == 1.5

    await world.later(timedelta(days=1000))
    await world.shared.spend(MONEY, 1.5, "r1")

    assert await world.shared.spent(MONEY) == 0.0, "in a later period too"


async def test_a_new_period_begins_with_nothing_spent(world: World) -> None:
    await world.shared.spend(MONEY, 5.0, "r1")
    await world.later(timedelta(days=1000))
    assert await world.shared.spent(MONEY) == 0.0

    await world.other.spend(MONEY, 1.0, "r2")

    assert await world.shared.spent(MONEY) == 1.0


async def test_a_budget_without_periods_never_forgets(world: World) -> None:
    ever = replace(MONEY, per=None)
    await world.shared.spend(ever, 5.0, "r1")
    await world.later(timedelta(days=1000))
    await world.shared.spend(ever, 1.0, "r2")

    assert await world.shared.spent(ever) == 6.0


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), float("-inf")])
async def test_an_amount_that_is_no_number_is_refused(world: World, amount: float) -> None:
    await world.shared.spend(MONEY, 1.0, "r1")

    with pytest.raises(InvalidInputError):
        await world.shared.spend(MONEY, amount, "r2")

    assert await world.shared.spent(MONEY) == 1.0
    await world.shared.spend(MONEY, 1.0, "r2")
    assert await world.shared.spent(MONEY) == 2.0

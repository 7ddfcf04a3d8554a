"""Policies that calls share across sagas: what may be declared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.guards import Budget, Cache, CircuitBreaker, RateLimit
from orchestrator.domain.policies import BudgetRule, CacheRule, Circuit, Rate
from orchestrator.domain.steps import step
from orchestrator.errors import DefinitionError

NAN, INF = float("nan"), float("inf")
MINUTE = timedelta(minutes=1)


@step
async def rate(order: int, ctx: WorkflowContext) -> str:
    return str(order)


def key(order: int) -> str:
    return str(order)


def key_of_text(text: str) -> str:
    return text


def number(order: int) -> int:
    return order


async def later(order: int) -> str:
    return ""


_rate: Any = rate


def test_fluent_forms_build_the_guards_with_their_rules() -> None:
    circuit: Any = rate.circuit("bank", failures=2, reset=60, probes=3)
    limit: Any = rate.rate_limit("bank", 10, per=MINUTE)
    cache: Any = rate.cache(60, name="rates", max_size=5, key=key)
    budget: Any = rate.budget(2.5, name="model", per=MINUTE)
    assert circuit.rule == Circuit("bank", 2, MINUTE, 3)
    assert limit.rule == Rate("bank", 10, MINUTE)
    assert cache.rule("rate") == CacheRule("rates", MINUTE, 5)
    assert budget.rule == BudgetRule("model", 2.5, MINUTE)
    assert [type(n) for n in (circuit, limit, cache, budget)] == [
        CircuitBreaker, RateLimit, Cache, Budget,
    ]  # fmt: skip


def test_what_is_left_out_is_the_steps_own_or_this_sagas_own() -> None:
    assert Cache(rate, 60).rule("rate").name == "rate"
    assert Budget(rate, 5).rule is None
    assert Budget(rate, 5, "all").rule == BudgetRule("all", 5, None)
    assert Budget(rate, 5, "all", per=60).rule == BudgetRule("all", 5, MINUTE)


def test_a_guard_changes_no_types_and_is_no_scope() -> None:
    for node in (rate.circuit("c"), rate.rate_limit("r", 1), rate.cache(1), rate.budget(1)):
        assert (node.input_type, node.output_type) == (int, str)
        assert node.transparent


@pytest.mark.parametrize(
    ("node", "text", "label"),
    [
        (rate.circuit("bank"), "CircuitBreaker(rate, 'bank')", "circuit bank"),
        (
            rate.circuit("bank", failures=2, reset=MINUTE, probes=2),
            "CircuitBreaker(rate, 'bank', failures=2, reset=60, probes=2)",
            "circuit bank",
        ),
        (rate.rate_limit("bank", 10), "RateLimit(rate, 'bank', 10)", "at most 10 in 1 s"),
        (
            rate.rate_limit("bank", 10, per=1_728_001),
            "RateLimit(rate, 'bank', 10, per=1728001)",
            "at most 10 in 1728001 s",
        ),
        (rate.cache(60), "Cache(rate, 60)", "cached for 60 s"),
        (
            rate.cache(60, name="n", max_size=5, key=key),
            "Cache(rate, 60, name='n', max_size=5, key=key)",
            "cached for 60 s",
        ),
        (rate.budget(2.5), "Budget(rate, 2.5)", "budget of 2.5"),
        (
            rate.budget(1_234_567, name="all", per=timedelta(days=1)),
            "Budget(rate, 1234567, name='all', per=86400)",
            "budget all of 1234567",
        ),
    ],
)
def test_a_guard_is_printed_as_it_is_written(node: Any, text: str, label: str) -> None:
    assert (repr(node), node.label) == (text, label)


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "x" * 101, None, 7])
def test_a_guard_needs_a_name_that_can_be_shared(name: Any) -> None:
    with pytest.raises(DefinitionError, match=r"circuit name .*: use 1 to 100"):
        rate.circuit(name)
    with pytest.raises(DefinitionError, match=r"rate limit name .*: use 1 to 100"):
        rate.rate_limit(name, 1)
    if name != "":
        with pytest.raises(DefinitionError, match=r"cache name .*: use 1 to 100"):
            rate.cache(1, name=name)
        with pytest.raises(DefinitionError, match=r"budget name .*: use 1 to 100"):
            rate.budget(1, name=name)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, INF, "5", None, 10**12])
def test_a_count_is_a_whole_number_of_one_or_more(bad: Any) -> None:
    builds: list[tuple[Callable[[], Any], str]] = [
        (lambda: rate.circuit("bank", failures=bad), "circuit 'bank': failures is"),
        (lambda: rate.circuit("bank", probes=bad), "circuit 'bank': probes is"),
        (lambda: rate.rate_limit("bank", bad), "rate limit 'bank': calls is"),
        (lambda: rate.cache(1, max_size=bad), "Cache: max_size is"),
    ]
    for build, match in builds:
        with pytest.raises(DefinitionError, match=match + ".*; give a whole number from 1"):
            build()


@pytest.mark.parametrize(
    "bad", [0, -1, NAN, INF, 1e30, 10**400, True, "5", timedelta(0), timedelta.max]
)
def test_a_period_is_a_time_above_nothing(bad: Any) -> None:
    builds: list[tuple[Callable[[], Any], str]] = [
        (lambda: rate.circuit("bank", reset=bad), "circuit 'bank': reset is"),
        (lambda: rate.rate_limit("bank", 1, bad), "rate limit 'bank': per is"),
        (lambda: rate.cache(bad), "Cache: ttl is"),
        (lambda: rate.budget(1, name="b", per=bad), "Budget: per is"),
    ]
    for build, match in builds:
        with pytest.raises(DefinitionError, match=match + ".*; give "):
            build()


@pytest.mark.parametrize("bad", [-1, -0.1, NAN, INF, True, "5", None, 10**400])
def test_a_budget_is_a_number_of_nothing_or_more(bad: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Budget: limit is .*; give a number from 0"):
        rate.budget(bad)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: _rate.budget(1, per=60), r'shared between sagas; give it a name: name='),
        (lambda: _rate.cache(None), "Cache: ttl is None; give seconds or a timedelta"),
        (lambda: _rate.cache(1, key=7), "Cache: key is 7; give a plain function"),
        (lambda: _rate.cache(1, key=rate), "Cache: key is rate; give a plain function"),
        (lambda: _rate.cache(1, key=later), "Cache: key: later is async"),
        (lambda: _rate.cache(1, key=lambda: ""), r"Cache: key takes \(\), .* \(input\)"),
        (lambda: _rate.cache(1, key=key_of_text), "key_of_text takes str, .* called with int"),
        (lambda: _rate.cache(1, key=number), "number gives int, but str is needed"),
        (lambda: Cache(key, 60), "Cache: key is a bare function"),  # type: ignore[arg-type]  # refused
        (lambda: Budget(key, 60), "Budget: key is a bare function"),  # type: ignore[arg-type]  # refused
        (lambda: RateLimit(key, "r", 1), "RateLimit: key is a bare"),  # type: ignore[arg-type]  # refused
        (lambda: CircuitBreaker(key, "c"), "CircuitBreaker: key is a bare"),  # type: ignore[arg-type]  # refused
    ],
)  # fmt: skip
def test_a_mistake_in_a_guard_is_refused(build: Any, match: str) -> None:
    with pytest.raises(DefinitionError, match=match):
        build()

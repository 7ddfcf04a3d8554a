"""What stands round one part: retries, time-outs, scopes, the pivot, adapters of data."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.context import View, WorkflowContext
from orchestrator.domain.definition import pure
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import step
from orchestrator.domain.waiting import sleep
from orchestrator.domain.wrappers import (
    Keep,
    Pivot,
    Retry,
    Scope,
    Timeout,
    Using,
    below_adapters,
    is_composite,
)
from orchestrator.errors import DefinitionError

NAN, INF = float("nan"), float("inf")


@step
async def hold(order: int, ctx: WorkflowContext) -> str:
    return str(order)


@step
async def pay(hold: str, ctx: WorkflowContext) -> bytes:
    return hold.encode()


def shout(text: str) -> str:
    return text.upper()


def of_view(view: View) -> str:
    return ""


def of_text(text: str) -> str:
    return text


def to_number(view: View) -> int:
    return 1


async def later(view: View) -> str:
    return ""


_hold: Any = hold
_pay: Any = pay
_retry: Any = Retry
_timeout: Any = Timeout
_scope: Any = Scope


def refused(match: str) -> Any:
    return pytest.raises(DefinitionError, match=match)


def test_fluent_forms_build_the_wrappers() -> None:
    kinds: list[Any] = [
        hold.retry(), hold.timeout(1), hold.scope("s"), hold.pivot(), hold.keep(),
        pay.using(lambda v: v.input),
    ]  # fmt: skip
    assert [type(node) for node in kinds] == [Retry, Timeout, Scope, Pivot, Keep, Using]
    assert all(node.children == (hold,) for node in kinds[:-1])


@pytest.mark.parametrize(
    "node", [hold.retry(), hold.timeout(1), hold.scope(), hold.pivot(), Retry(Timeout(hold, 1))]
)
def test_a_wrapper_takes_and_gives_what_is_inside(node: Any) -> None:
    assert (node.input_type, node.output_type) == (int, str)


def test_what_adapts_data_has_types_of_its_own() -> None:
    assert (hold.keep().input_type, hold.keep().output_type) == (int, tuple[int, str])
    using = pay.using(lambda v: v.input)
    assert (using.input_type, using.output_type) == (Any, bytes)


@pytest.mark.parametrize(
    ("node", "passes"),
    [
        (hold, False),
        (sleep(1), True),
        (sleep(1) >> sleep(2), True),
        (sleep(1).retry().timeout(5).scope(), True),
        (sleep(1).keep(), False),
        (sleep(1).using(of_view), False),
        (hold.retry(), False),
    ],
)
def test_a_wrapper_passes_on_what_its_part_passes_on(node: Any, passes: bool) -> None:
    assert node.passes_on is passes


def test_what_a_wrapper_was_given_stays_when_its_part_is_changed() -> None:
    one = Retry(hold, 5, 2, 3.0, 9, jitter=False, on=(OSError,))
    other: Any = one.with_children((pay,))
    assert other.inner is pay
    assert (other.max_retries, other.backoff, other.on) == (5, one.backoff, (OSError,))


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (hold.retry(), "Retry(hold)"),
        (
            hold.retry(5, initial=2, factor=3, cap=9, jitter=False, on=(OSError, TimeoutError)),
            "Retry(hold, max_retries=5, initial=2, factor=3, cap=9, jitter=False, "
            "on=(OSError, TimeoutError))",
        ),
        (hold.retry(on=(OSError,)), "Retry(hold, on=(OSError,))"),
        (Timeout(Retry(hold, max_retries=5), 120), "Timeout(Retry(hold, max_retries=5), 120)"),
        (hold.timeout(0.25), "Timeout(hold, 0.25)"),
        (hold.timeout(timedelta(days=20, seconds=1)), "Timeout(hold, 1728001)"),
        (hold.scope(), "Scope(hold)"),
        (hold.scope("try"), "Scope(hold, name='try')"),
        (hold.pivot(), "hold.pivot()"),
        ((hold >> pay).pivot(), "(hold >> pay).pivot()"),
        (hold.keep(), "hold.keep()"),
        (hold.retry().keep(), "Retry(hold).keep()"),
        (pay.using(of_view), "pay.using(of_view)"),
        (pay.using(lambda v: v.input), "pay.using(<lambda>)"),
    ],
)
def test_a_wrapper_is_printed_as_it_is_written(node: Any, text: str) -> None:
    assert repr(node) == text


def test_labels_say_times_as_people_do() -> None:
    assert hold.timeout(timedelta(days=20, seconds=1)).label == "within 1728001 s"
    assert hold.timeout(0.5).label == "within 0.5 s"


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: _retry(shout), r"Retry: shout is a bare function; .* pure\(shout\)"),
        (lambda: _timeout(7, 1), "Timeout: 7 is not part of a flow"),
        (lambda: _scope(shout), "Scope: shout is a bare function"),
        (lambda: _scope(lambda x: x), "Scope: a lambda is a bare function"),
        (lambda: Retry(hold, -1), "Retry: max_retries is -1; give a whole number from 0"),
        (lambda: Retry(hold, True), "Retry: max_retries is True"),
        (lambda: _retry(hold, 2.5), "Retry: max_retries is 2.5"),
        (lambda: _retry(hold, None), "Retry: max_retries is None"),
        (lambda: _retry(hold, INF), "Retry: max_retries is inf"),
        (lambda: Retry(hold, 10**12), "Retry: max_retries is 1000000000000; .* 1,000,000,000"),
        (lambda: Retry(hold, factor=0.5), r"factor \(waits do not shrink\) is 0.5; .* from 1 to"),
        (lambda: Retry(hold, factor=NAN), "factor .* is nan"),
        (lambda: Retry(hold, factor=INF), "factor .* is inf"),
        (lambda: Retry(hold, factor=True), "factor .* is True"),
        (lambda: _retry(hold, factor="2"), "factor .* is '2'"),
        (lambda: _retry(hold, on=OSError), r"Retry: on is one class; write a tuple: \(OSError,\)"),
        (lambda: _retry(hold, on=[OSError]), "Retry: on is .*; give a tuple of exception classes"),
        (lambda: _retry(hold, on=("OSError",)), "give a tuple of exception classes"),
        (lambda: _retry(hold, on=(int,)), "give a tuple of exception classes"),
        (lambda: _hold.timeout(None), "Timeout: after is None; give seconds or a timedelta"),
        (lambda: _hold.scope("a b"), "scope name 'a b': use 1 to 100"),
        (lambda: _hold.scope(7), "scope name 7"),
        (lambda: _hold.scope("a),Step:b("), "scope name"),
        (lambda: _pay.using(hold), "using is hold; give a plain function"),
        (lambda: _pay.using(7), r"using is 7; give a plain function \(view\)"),
        (lambda: _pay.using(later), "using: later is async or a generator; let a @step before it"),
        (lambda: _pay.using(lambda: 1), r"using takes \(\), but it is called with \(view\)"),
        (lambda: _pay.using(to_number), "using: to_number gives int, but str is needed"),
        (lambda: _pay.using(of_text), "using: of_text takes str, but it is called with View"),
    ],
)
def test_a_mistake_in_a_wrapper_is_refused(build: Any, match: str) -> None:
    with refused(match):
        build()


@pytest.mark.parametrize(
    "bad", [NAN, INF, -INF, -1, -1e-9, 1e30, 10**400, True, "5", timedelta.max]
)
def test_a_wait_that_is_no_time_is_refused(bad: Any) -> None:
    for build, place in (
        (lambda: Retry(hold, initial=bad), "Retry: initial is .*give"),
        (lambda: Retry(hold, cap=bad), "Retry: cap is .*give"),
        (lambda: Timeout(hold, bad), "Timeout: after is .*give"),
    ):
        with refused(place):
            build()


@pytest.mark.parametrize("bad", [0, 0.0, 1e-9, timedelta(0), timedelta(seconds=-1)])
def test_a_time_out_above_nothing_is_needed(bad: Any) -> None:
    with refused("Timeout: after is .*; give more than 0 seconds, at most 36,500 days"):
        Timeout(hold, bad)


def test_a_wait_of_nothing_is_a_wait() -> None:
    backoff = Retry(hold, initial=0, cap=timedelta(0)).backoff
    assert (backoff.initial, backoff.cap) == (timedelta(0), timedelta(0))


# ---------------------------------------------------------------------------- composites


child = Saga("child", 1, hold).child()


@pytest.mark.parametrize(
    ("node", "composite"),
    [
        (hold, False),
        (pure(shout), False),
        (sleep(1), False),
        (hold.retry(1).timeout(2).retry(3), False),
        (hold.pivot().keep().circuit("c").rate_limit("r", 1).cache(5).budget(1), False),
        (hold.using(lambda v: v.input), False),
        (hold >> pay, True),
        (hold | hold, True),
        (hold.scope(), True),
        (hold.fallback(hold), True),
        (child, True),
        (child.retry().pivot(), True),
        (Timeout(Retry(hold >> pay), 5), True),
    ],
)
def test_a_wrapper_is_a_scope_round_what_can_complete_more_than_one_thing(
    node: Any, composite: bool
) -> None:
    assert is_composite(node) is composite


def test_below_adapters_is_the_step_itself() -> None:
    assert below_adapters(hold.keep().retry().timeout(5).pivot()) is hold
    assert below_adapters(hold.scope().retry()).children == (hold,)

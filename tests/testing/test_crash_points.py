"""`crash_points` lets correct sagas pass, and finds what is wrong with others, readably."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from orchestrator import (
    Attempted,
    Completed,
    Fallback,
    Flow,
    Happened,
    Permanent,
    Saga,
    Signal,
    Step,
    Unknown,
    WorkflowContext,
    each,
    flow,
    loop,
    pure,
    sleep,
    step,
)
from orchestrator.testing import CrashPointFailed, Report, SimulationError, Simulator, crash_points
from tests.testing.shop import LAMP, Bank, order, services, take_payment

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.DefinitionWarning")

_numbers = count()


@dataclass
class Till:
    """Money, by key."""

    cents: int = 0
    paid: dict[str, int] = field(default_factory=dict)
    asked: int = 0

    def pay(self, key: str) -> str:
        if key not in self.paid:
            self.paid[key] = 100
            self.cents += 100
        return key

    def refund(self, key: str) -> None:
        self.cents -= self.paid.pop(key, 0)


Undo = Callable[[Any, WorkflowContext], Any]


async def careful(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
    ctx.use(Till).refund(tried.key)


def pay_with(key: Callable[[WorkflowContext], str], undo: Undo = careful) -> Step[str, str]:
    @step
    async def pay(order: str, ctx: WorkflowContext) -> str:
        return ctx.use(Till).pay(key(ctx))

    pay.compensation_on_doubt(undo)
    return pay


def own_key(ctx: WorkflowContext) -> str:
    return ctx.idempotency_key


def then_ship(pay: Step[str, str]) -> Saga[str, str]:
    @step
    async def ship(paid: str, ctx: WorkflowContext) -> str:
        return "shipped"

    return Saga("buy", version=1, body=pay >> ship)


def tried(saga: Saga[str, Any], **options: Any) -> Report:
    return crash_points(saga, "lamp", resources={Till: Till()}, **options)


def found(saga: Saga[str, Any], **options: Any) -> CrashPointFailed:
    with pytest.raises(CrashPointFailed) as caught:
        tried(saga, **options)
    return caught.value


# ---------------------------------------------------------------------------- correct sagas


def test_a_correct_saga_passes_and_says_what_was_tried() -> None:
    report = crash_points(order, LAMP, resources=services, ignore=("calls",))
    assert report.points > 100
    assert report.orders == 2
    assert report.troubles > 50
    assert not report.cut
    assert "crash points" in str(report)


def test_a_saga_of_stubs_needs_no_resources() -> None:
    assert crash_points(order, LAMP, auto=True).points > 100
    with pytest.raises(SimulationError, match="uses Stock"):
        crash_points(order, LAMP)


def test_every_order_of_three_answers_is_tried() -> None:
    a, b, c = (_quiet(name) for name in "abc")
    report = crash_points(Saga("wide", 1, (a | b | c) >> pure(str)), 1, troubles=False)
    assert report.orders == 6


def test_the_bound_is_kept_and_said() -> None:
    report = crash_points(order, LAMP, auto=True, bound=30)
    assert report.runs == 30
    assert report.cut
    assert "cut" in str(report)


def test_a_step_that_always_fails_is_undone_everywhere() -> None:
    saga = then_ship(pay_with(own_key))
    assert tried(saga, fails={"ship": Permanent("no ships")}, troubles=False).points > 10


def test_signals_and_timers_and_children_come_through() -> None:
    verdict = Signal("verdict", str)
    inner = Saga("inner", 1, pay_with(own_key))
    body = verdict.wait(within=timedelta(days=2)) >> sleep(3600) >> inner.child()
    assert tried(Saga("outer", 1, body), signals=[(verdict, "yes")]).points > 20


def test_the_code_of_a_flow_comes_through() -> None:
    pay = pay_with(own_key)
    verdict = Signal("verdict", str)

    @flow
    async def negotiate(order: str, f: Flow) -> str:
        for offer in range(3):
            if await f.receive(verdict, within=3600) == "yes":
                return await f.run(pay, f"{order} {offer}")
            await f.sleep(60)
        raise Permanent("no deal")

    deal = Saga("deal", 1, negotiate)
    assert tried(deal, signals=[(verdict, "no"), (verdict, "yes")]).points > 20
    assert tried(deal, signals=[(verdict, "no")]).points > 5


def test_fallbacks_lists_and_loops_come_through() -> None:
    robust = Fallback(pay_with(own_key).named("card"), [pay_with(own_key).named("voucher")])
    tried(Saga("robust", 1, robust))

    @step
    async def poll(value: int, ctx: WorkflowContext) -> int:
        return value + 1

    tried_loop = loop(poll, until=lambda n: n > 2, max_iterations=3, pause=60)
    crash_points(Saga("polled", 1, tried_loop), 1)
    listed = Saga("listed", 1, each(pay_with(own_key), concurrency=2))
    crash_points(listed, ["a", "b"], resources={Till: Till()}, bound=300)


def pivoted(point: Step[int, int]) -> Saga[str, int]:
    body = pay_with(own_key) >> pure(len) >> point.retry(1).pivot() >> _quiet("last")
    return Saga("pivoted", 1, body)


def test_steps_after_a_pivot_are_refused_for_a_moment_only() -> None:
    point = _quiet("point")

    @point.probe
    async def ask(tried: Attempted[int, int], ctx: WorkflowContext) -> Happened[int]:
        return Happened(tried.input)

    tried(pivoted(point))


def test_a_pivot_that_nobody_can_ask_about_is_found() -> None:
    assert "@point.probe" in str(found(pivoted(_quiet("point"))))


def _quiet(name: str) -> Step[int, int]:
    async def act(value: int, ctx: WorkflowContext) -> int:
        return value

    return step(name=name)(act)


# ---------------------------------------------------------------------------- planted bugs


def test_a_key_that_is_made_up_anew_is_found() -> None:
    error = found(then_ship(pay_with(lambda ctx: f"key-{next(_numbers)}")))
    assert "pay is not idempotent" in error.problem
    assert "Till.cents: 100 → 200" in str(error)
    assert "ctx.idempotency_key" in str(error)


def test_an_undo_that_is_not_idempotent_is_found() -> None:
    async def refund_again(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        ctx.use(Till).cents -= 100

    error = found(then_ship(pay_with(own_key, refund_again)))
    assert "the undo of pay is not idempotent" in error.problem
    assert "the process died when the undo of pay was done, and nobody knew" in str(error)


def test_an_undo_that_does_nothing_is_found() -> None:
    async def pass_by(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        """Somebody will do it one day."""

    error = found(then_ship(pay_with(own_key, pass_by)))
    assert "the undo of pay does nothing" in error.problem
    assert "Till.cents: 0 → 100" in str(error)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_forgotten_undo_on_doubt_is_found(retries: int) -> None:
    @step(retries=retries)
    async def pay(order: str, ctx: WorkflowContext) -> str:
        return ctx.use(Till).pay(ctx.idempotency_key)

    @pay.compensation
    async def refund(done: Completed[str, str], ctx: WorkflowContext) -> None:
        ctx.use(Till).refund(done.key)

    error = found(then_ship(pay))
    assert "stuck" in error.problem
    assert "@pay.compensation_on_doubt" in str(error)
    assert "trouble pay was done, but its answer was lost" in str(error)


def test_a_forgotten_undo_is_found_where_something_was_done() -> None:
    @step
    async def pay(order: str, ctx: WorkflowContext) -> str:
        return ctx.use(Till).pay(ctx.idempotency_key)

    assert "nothing takes back what pay did" in found(then_ship(pay)).problem
    tried(then_ship(pay.without_undo("it is a gift")))


def test_a_step_that_fails_half_way_is_found() -> None:
    @step
    async def pay(order: str, ctx: WorkflowContext) -> str:
        ctx.use(Till).pay(ctx.idempotency_key)
        raise ValueError("no paper for the receipt")

    pay.compensation_on_doubt(careful)
    error = found(then_ship(pay))
    assert "pay raised ValueError, which says that nothing happened, but something did" in str(
        error
    )


def test_a_cleanup_that_only_a_living_process_does_is_no_help() -> None:
    @step(retries=1)
    async def pay(order: str, ctx: WorkflowContext) -> str:
        till = ctx.use(Till)
        till.cents += 100
        try:
            await asyncio.sleep(0)
        except BaseException:
            till.cents -= 100
            raise
        return order

    @pay.compensation_on_doubt
    async def refund(tried: Any, ctx: WorkflowContext) -> None:
        """Nothing that could be found by a key."""

    assert "pay is not idempotent" in found(then_ship(pay)).problem


def test_a_probe_that_never_knows_is_found() -> None:
    pay = pay_with(own_key).named("pay")
    bare: Step[str, str] = Step("pay", pay.action, str, str)

    @bare.compensation
    async def refund(done: Completed[str, str], ctx: WorkflowContext) -> None:
        ctx.use(Till).refund(done.key)

    @bare.probe
    async def ask(tried: Attempted[str, str], ctx: WorkflowContext) -> Unknown:
        return Unknown()

    assert "stuck" in found(then_ship(bare)).problem


def test_a_saga_that_waits_for_ever_is_found() -> None:
    verdict = Signal("verdict", str)
    error = found(Saga("patient", 1, pay_with(own_key) >> verdict.wait()))
    assert "signals=[(verdict, payload)]" in str(error)


# ---------------------------------------------------------------------------- the message


def test_the_message_shows_crash_history_and_effects() -> None:
    error = found(then_ship(pay_with(lambda ctx: f"key-{next(_numbers)}")))
    text = str(error)
    assert "crash   the process died when pay was done, and nobody knew" in text
    assert "history" in text
    assert "StepSucceeded" in text
    assert "effects" in text
    assert "under way" in text
    assert f'only="{error.only}"' in text


def test_the_run_that_failed_can_be_run_alone() -> None:
    saga = then_ship(pay_with(lambda ctx: f"key-{next(_numbers)}"))
    first = found(saga)
    assert found(saga, only=first.only).problem == first.problem
    assert tried(then_ship(pay_with(own_key)), only=first.only).runs == 1


def test_what_only_counts_calls_is_left_out_when_told() -> None:
    @step
    async def pay(order: str, ctx: WorkflowContext) -> str:
        ctx.use(Till).asked += 1
        return ctx.use(Till).pay(ctx.idempotency_key)

    pay.compensation_on_doubt(careful)
    assert 'ignore=("its name",)' in str(found(then_ship(pay)))
    tried(then_ship(pay), ignore=("asked",))


def test_fakes_that_cannot_be_copied_are_asked_for_as_a_function() -> None:
    class Stubborn(Till):
        def __deepcopy__(self, memo: Mapping[int, Any]) -> Till:
            raise TypeError("never")

    with pytest.raises(SimulationError, match="resources=lambda"):
        crash_points(then_ship(pay_with(own_key)), "x", resources={Till: Stubborn()})


# ---------------------------------------------------------------------------- the long form


async def test_each_crash_can_be_looked_at_by_the_test_itself(sim: Simulator) -> None:
    sim.resources.update(services())
    points = []
    async for crashed in sim.crash_points(order, LAMP):
        out = await crashed.run(order, LAMP)
        assert out.status == "completed"
        assert crashed.effects(take_payment) == 1
        assert crashed.resources[Bank].balance == 700
        points.append(crashed.point)
    assert len(set(points)) > 15
    assert sim.resources[Bank].balance == 1_000


def test_the_long_form_does_without_async_and_keeps_stubs(sim: Simulator) -> None:
    sim.stub("pay", returns="paid")
    saga = then_ship(pay_with(own_key))
    runs = 0
    for crashed in sim.crash_points(saga, "lamp", troubles=True):
        assert crashed.run_sync(saga, "lamp").status in ("completed", "compensated")
        runs += 1
    assert runs > 20

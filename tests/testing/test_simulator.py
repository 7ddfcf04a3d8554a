"""The simulator: the real machinery, in virtual time, doing what the test says."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator import (
    Permanent,
    Retryable,
    Saga,
    Signal,
    Step,
    WorkflowContext,
    each,
    pure,
    sleep,
    step,
    transactional,
)
from orchestrator.testing import SimulationError, Simulator
from orchestrator.testing.process import Process
from tests.testing.shop import (
    LAMP,
    Bank,
    Held,
    Order,
    Paid,
    Stock,
    book_parcel,
    hold_stock,
    order,
    services,
    take_payment,
    write_receipt,
)

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.DefinitionWarning")

verdict = Signal("verdict", str)


@step
async def ask(question: str, ctx: WorkflowContext) -> str:
    return question


asked = Saga("asked", version=1, body=ask >> verdict.wait(within=timedelta(days=2)))


def open_shop(sim: Simulator) -> Simulator:
    sim.resources.update(services())
    return sim


# ---------------------------------------------------------------------------- running


async def test_runs_the_users_own_functions_with_their_resources(sim: Simulator) -> None:
    open_shop(sim)
    out = await sim.run(order, LAMP)
    assert out.status == "completed"
    assert out.result.startswith("receipt of parcel")
    assert set(out.completed) == {"hold_stock", "take_payment", "book_parcel", "write_receipt"}
    assert out.compensated == ()
    assert sim.resources[Bank].balance == 700
    assert out.effects(take_payment) == 1


def test_runs_in_a_test_that_is_not_async(sim: Simulator) -> None:
    assert open_shop(sim).run_sync(order, LAMP).status == "completed"


async def test_the_loop_of_the_test_is_as_it_was_afterwards(sim: Simulator) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    await open_shop(sim).run(order, LAMP)
    assert asyncio.get_running_loop() is loop
    assert asyncio.current_task() is task
    await asyncio.wait_for(asyncio.sleep(0), 1)


async def test_fakes_are_called_in_the_thread_of_the_test(sim: Simulator) -> None:
    @step
    def insert(value: int, ctx: WorkflowContext) -> int:
        ctx.use(sqlite3.Connection).execute("insert into t values (?)", (value,))
        return threading.get_ident()

    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (v int)")
    sim.resources[sqlite3.Connection] = connection
    out = await sim.run(Saga("insert", 1, insert), 7)
    assert out.result == threading.get_ident()
    assert connection.execute("select v from t").fetchall() == [(7,)]
    connection.close()


async def test_a_late_failure_undoes_everything(sim: Simulator) -> None:
    open_shop(sim)
    sim.stub(take_payment, returns=Paid(payment_id="p1"))
    sim.fail(write_receipt, Permanent("no paper"), times=99)
    out = await sim.run(order, LAMP)
    assert out.status == "compensated"
    assert out.compensated[-1] == "hold_stock"
    assert out.failure is not None
    assert out.failure.message == "no paper"
    assert "no paper" in out.reason
    assert sim.resources[Stock].held == {f"{out.saga_id}/order/0": "released"}


def test_an_outcome_shows_itself_as_a_table(sim: Simulator) -> None:
    text = str(open_shop(sim).run_sync(order, LAMP))
    assert text.startswith("order version 1 is completed")
    assert "SagaCompleted" in text
    assert "take_payment" in text
    assert "applied" in text


def test_a_result_that_is_not_there_is_refused_with_the_history(sim: Simulator) -> None:
    sim.fail(ask)
    out = sim.run_sync(asked, "may I?")
    with pytest.raises(AssertionError, match="StepFailed"):
        _ = out.result


# ---------------------------------------------------------------------------- time


def test_waiting_costs_nothing(sim: Simulator) -> None:
    @step(timeout=timedelta(days=1))
    async def nap(value: int, ctx: WorkflowContext) -> int:
        await asyncio.sleep(3600)
        return value

    began = time.monotonic()
    out = sim.run_sync(Saga("nap", 1, nap >> sleep(timedelta(days=400)) >> pure(str)), 1)
    assert out.result == "1"
    assert out.took >= timedelta(days=400)
    assert sim.elapsed >= timedelta(days=400, hours=1)
    assert time.monotonic() - began < 5


def test_a_step_that_takes_longer_than_its_time_out_is_in_doubt(sim: Simulator) -> None:
    @step(timeout=30)
    async def slow(value: int, ctx: WorkflowContext) -> int:
        await asyncio.sleep(31)
        return value

    out = sim.run_sync(Saga("slow", 1, slow), 1)
    assert [entry.type for entry in out.events][1:3] == ["StepStarted", "StepInDoubt"]


def test_time_passes_only_when_it_is_told_to(sim: Simulator) -> None:
    instance = sim.start(asked, "may I?")
    assert instance.status == "waiting"
    assert instance.outcome.waits_for == ("verdict",)
    assert sim.elapsed == timedelta(0)
    sim.advance(timedelta(days=1))
    assert sim.elapsed == timedelta(days=1)
    assert instance.status == "waiting"
    sim.advance(timedelta(days=1))
    assert instance.status == "compensated"
    assert instance.outcome.failure is not None
    assert instance.outcome.failure.type == "TimeoutError"


def test_a_saga_that_waits_for_ever_is_handed_back_waiting(sim: Simulator) -> None:
    out = sim.run_sync(Saga("patient", 1, ask >> verdict.wait()), "may I?")
    assert out.status == "waiting"
    assert out.waits_for == ("verdict",)


def test_a_parent_of_a_saga_that_waits_for_ever_does_not_poll_for_ever(sim: Simulator) -> None:
    child = Saga("child", 1, ask >> verdict.wait())
    out = sim.run_sync(Saga("parent", 1, child.child()), "may I?")
    assert out.status == "waiting"
    assert sim.elapsed < timedelta(days=7), "some looks, six hours apart"


def test_retries_wait_in_virtual_time(sim: Simulator) -> None:
    sim.fail(ask, Retryable("busy", after=3600), times=2)
    out = sim.run_sync(Saga("retried", 1, ask.retry(2, jitter=False) >> pure(str)), "x")
    assert out.status == "completed"
    assert sim.elapsed >= timedelta(hours=2)
    assert [call.attempt for call in sim.calls(ask)] == [1, 2, 3]


# ---------------------------------------------------------------------------- from outside


def test_a_signal_goes_through_the_service(sim: Simulator) -> None:
    instance = sim.start(asked, "may I?")
    assert instance.signal(verdict, "yes", dedupe_key="1")
    assert not sim.signal(instance, verdict, "no", dedupe_key="1")
    assert instance.finish().result == "yes"


def test_a_cancel_can_come_while_a_step_is_called(sim: Simulator) -> None:
    open_shop(sim)
    instance = None

    def cancel() -> None:
        assert instance is not None
        instance.cancel("changed my mind")

    sim.when(ask, cancel)
    instance = sim.start(Saga("late", 1, sleep(60) >> ask >> sleep(60) >> pure(str)), "x")
    out = instance.finish()
    assert out.status == "compensated"
    assert "changed my mind" in out.reason


def test_what_an_operator_does_goes_through_the_service(sim: Simulator) -> None:
    open_shop(sim)
    sim.fail(write_receipt)
    sim.fail_compensation(take_payment, Permanent("the bank is closed"))
    instance = sim.start(order, LAMP)
    assert instance.finish().status == "stuck"
    sim.act(sim.orchestrator.retry_step(instance.saga_id, reason="it is open again", actor="ann"))
    assert instance.finish().status == "compensated"


def test_the_same_key_starts_one_instance(sim: Simulator) -> None:
    first, second = (sim.start(asked, "may I?", key="k") for _ in range(2))
    assert first.saga_id == second.saga_id
    assert len(sim.calls(ask)) == 1


# ---------------------------------------------------------------------------- stubs and faults


def test_a_stub_can_be_a_function_async_or_not(sim: Simulator) -> None:
    async def held(given: Order, ctx: WorkflowContext) -> Held:
        return Held(hold_id=given.sku, cents=given.cents + ctx.attempt)

    sim.stub(hold_stock, with_=held)
    sim.stub(take_payment, with_=lambda held, ctx: Paid(payment_id=f"{held.cents}"))
    out = sim.run_sync(order, LAMP)
    assert out.status == "completed"
    assert out.calls(take_payment)[0].input == Held(hold_id="lamp", cents=301)


def test_a_stub_takes_as_long_as_it_is_told_to(sim: Simulator) -> None:
    sim.stub(ask, returns="x", takes=timedelta(minutes=5))
    out = sim.run_sync(Saga("slow", 1, ask), "x")
    assert out.took == timedelta(minutes=5)


def test_a_stub_can_give_none_but_must_give_something(sim: Simulator) -> None:
    @step
    async def tell(value: int, ctx: WorkflowContext) -> None:
        raise AssertionError("it is stubbed")

    with pytest.raises(TypeError, match="either returns="):
        sim.stub(tell)
    sim.stub(tell, returns=None)
    assert sim.run_sync(Saga("tell", 1, tell), 1).status == "completed"


def test_a_stubbed_step_is_undone_without_its_own_undo(sim: Simulator) -> None:
    for step_, value in (
        (hold_stock, Held(hold_id="h", cents=1)),
        (take_payment, Paid(payment_id="p")),
    ):
        sim.stub(step_, returns=value)
    sim.fail(write_receipt)
    out = sim.run_sync(order, LAMP)
    assert out.status == "compensated"
    assert sim.effects(take_payment, "undo") == 1


def test_a_failure_ends_after_as_many_times(sim: Simulator) -> None:
    sim.fail("ask", Retryable("busy"), times=2)
    out = sim.run_sync(Saga("retried", 1, ask.retry(3)), "x")
    assert out.status == "completed"
    assert len(out.calls(ask)) == 3
    assert out.effects(ask) == 1


@pytest.mark.parametrize(("happened", "effects"), [(True, 1), (False, 0)])
def test_a_doubt_leaves_the_effect_applied_or_not(
    happened: bool, effects: int, sim: Simulator
) -> None:
    open_shop(sim)
    sim.doubt(take_payment, happened=happened)
    out = sim.run_sync(order, LAMP)
    assert out.status == "compensated"
    assert "StepInDoubt" in [entry.type for entry in out.events]
    assert out.effects(take_payment) == effects
    assert sim.resources[Bank].balance == 1_000


def test_a_doubt_with_a_retry_counts_as_one_effect(sim: Simulator) -> None:
    sim.doubt(ask, times=2)
    out = sim.run_sync(Saga("retried", 1, ask.retry(3)), "x")
    assert out.status == "completed"
    assert len(out.calls(ask)) == 3
    assert out.effects(ask) == 1


def test_a_doubt_comes_by_time_out_where_lost_connections_are_none(sim: Simulator) -> None:
    @step(doubt_on=(KeyError,), timeout=5)
    async def odd(value: int, ctx: WorkflowContext) -> int:
        return value

    sim.doubt(odd)
    out = sim.run_sync(Saga("odd", 1, odd), 1)
    assert "StepInDoubt" in [entry.type for entry in out.events]


def test_a_compensation_fails_and_is_tried_again(sim: Simulator) -> None:
    open_shop(sim)
    sim.fail(write_receipt)
    sim.fail_compensation(take_payment, times=5)
    out = sim.run_sync(order, LAMP)
    assert out.status == "compensated"
    assert len(out.calls(take_payment, "undo")) == 6


def test_every_other_step_is_made_up_when_asked_for() -> None:
    with Simulator(auto=True) as sim:
        sim.stub(take_payment, returns=Paid(payment_id="mine"))
        out = sim.run_sync(order, LAMP)
        assert out.status == "completed"
        assert sim.calls(take_payment)[0].input == Held(hold_id="hold_id", cents=1)


def test_a_transactional_step_is_stubbed_like_any_other(sim: Simulator) -> None:
    @transactional
    async def post(value: int, ctx: WorkflowContext, db: AsyncSession) -> int:
        return value

    sim.stub(post, returns=3)
    out = sim.run_sync(Saga("post", 1, post), 1)
    assert out.result == 3
    assert out.effects(post) == 1


def test_children_and_lists_are_simulated_too(sim: Simulator) -> None:
    open_shop(sim)
    parent = Saga("bulk", 1, each(order.child(), concurrency=2))
    out = sim.run_sync(parent, [LAMP, LAMP, LAMP])
    assert len(out.result) == 3
    assert sim.resources[Bank].balance == 100
    assert sim.effects(take_payment) == 3


# ---------------------------------------------------------------------------- crashes


def test_a_crash_after_a_step_runs_it_again_under_the_same_key(sim: Simulator) -> None:
    open_shop(sim)
    sim.crash_after(take_payment)
    out = sim.run_sync(order, LAMP)
    assert out.status == "completed"
    first, second = out.calls(take_payment)
    assert first.key == second.key
    assert (first.process, second.process) == (1, 2)
    assert out.effects(take_payment) == 1
    assert sim.resources[Bank].balance == 700


def test_a_crash_in_an_undo_runs_it_again(sim: Simulator) -> None:
    open_shop(sim)
    sim.fail(write_receipt)
    sim.crash_after(take_payment, kind="undo")
    out = sim.run_sync(order, LAMP)
    assert out.status == "compensated"
    assert len(out.calls(take_payment, "undo")) == 2


def test_a_crash_may_come_at_any_time(sim: Simulator) -> None:
    instance = sim.start(asked, "may I?")
    sim.crash()
    sim.advance(timedelta(hours=1))
    instance.signal(verdict, "yes")
    assert instance.finish().result == "yes"
    assert len(sim.calls(ask)) == 1


def test_nothing_of_a_dead_process_runs_on_not_even_its_finally(sim: Simulator) -> None:
    heard: list[str] = []

    @step
    async def nap(value: int, ctx: WorkflowContext) -> int:
        async def beside() -> None:
            await asyncio.sleep(20)
            heard.append("a task of a dead process")

        task = asyncio.create_task(beside())
        try:
            await asyncio.sleep(10)
        except BaseException:
            heard.append("cut off")
            raise
        finally:
            heard.append("finally")
        await task
        return value

    instance = sim.start(Saga("nap", 1, nap), 1)
    sim.advance(5)
    sim.crash()
    sim.advance(3)
    assert heard == []
    assert instance.finish().status == "completed"
    assert heard == ["finally", "a task of a dead process"]  # of the second process


# ---------------------------------------------------------------------------- determinism


def wide() -> Saga[Any, Any]:
    def branch(name: str) -> Step[int, int]:
        async def act(value: int, ctx: WorkflowContext) -> int:
            return value

        return step(name=name)(act)

    a, b, c, d, e = map(branch, "abcde")
    return Saga("wide", 1, (a | b | c | d | e) >> pure(str))


def trace(seed: int) -> tuple[str, ...]:
    with Simulator(seed) as sim:
        sim.doubt("b")
        sim.run_sync(wide(), 1)
        return sim.trace


def test_the_same_seed_gives_the_same_trace() -> None:
    assert trace(7) == trace(7)


def test_another_seed_gives_another_trace() -> None:
    assert len({trace(seed) for seed in range(10)}) > 5


def test_the_trace_does_not_depend_on_the_process_it_is_made_in() -> None:
    program = "from tests.testing.test_simulator import trace; print(*trace(3), sep='\\n')"
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        )
        assert tuple(done.stdout.splitlines()) == trace(3)


# ---------------------------------------------------------------------------- what is refused


def test_a_missing_resource_is_the_tests_fault_and_says_so(sim: Simulator) -> None:
    with pytest.raises(SimulationError, match=r"uses Stock.*sim\.resources\[Stock\]"):
        sim.run_sync(order, LAMP)


def test_a_name_that_no_step_has_is_refused_with_the_nearest(sim: Simulator) -> None:
    open_shop(sim)
    sim.fail("take_paiment")
    with pytest.raises(SimulationError, match="did you mean 'take_payment'"):
        sim.run_sync(order, LAMP)


def test_a_value_that_cannot_be_made_up_is_asked_for() -> None:
    class Opaque:
        def __init__(self, secret: object) -> None:
            raise AssertionError(secret)

    @step
    async def odd(value: int, ctx: WorkflowContext) -> Any:
        return value

    with Simulator(auto=True) as sim:
        typed = Saga("odd", 1, odd)
        object.__setattr__(odd, "gives", Opaque)
        with pytest.raises(SimulationError, match=r"made up for odd.*sim\.stub\(odd"):
            sim.run_sync(typed, 1)


def test_a_step_cannot_reach_the_network(sim: Simulator) -> None:
    @step
    async def call(value: int, ctx: WorkflowContext) -> int:
        await asyncio.open_connection("127.0.0.1", 9)
        return value

    with pytest.raises(SimulationError, match="cannot reach a network"):
        sim.run_sync(Saga("call", 1, call), 1)


def test_steps_stay_what_they_were(sim: Simulator) -> None:
    sim.stub(book_parcel, returns="x")
    open_shop(sim).run_sync(order, LAMP)
    assert book_parcel.action.__name__ == "book_parcel"


def test_a_process_that_breaks_down_says_why_and_does_not_leave_the_saga_pending(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(self: Process) -> None:
        raise RuntimeError("this process has no store")

    monkeypatch.setattr(Process, "work", work)
    with pytest.raises(RuntimeError, match="this process has no store"):
        sim.run_sync(order, LAMP)

"""What both type checkers must refuse, each on the line that says so at its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from orchestrator import (
    Attempted,
    Budget,
    Cache,
    Compensation,
    Completed,
    Fallback,
    Flow,
    Handle,
    Happened,
    NotHappened,
    Orchestrator,
    Parallel,
    Primitive,
    Retry,
    Router,
    Saga,
    Scope,
    Signal,
    Timeout,
    Unknown,
    View,
    WorkflowContext,
    each,
    flow,
    loop,
    pure,
    remote,
    sleep,
    step,
    transactional,
    when,
)
from orchestrator.testing import Simulator

far = remote("far", input=int, output=str, topic="t")
far_number = remote("far", input=int, output=int, topic="t")


@step
async def hold(order: int, ctx: WorkflowContext) -> str:
    return str(order)


@step
async def pay(hold: str, ctx: WorkflowContext) -> bytes:
    return hold.encode()


@step
async def ship(payment: bytes, ctx: WorkflowContext) -> float:
    return 0.5


@step
async def again(hold: str, ctx: WorkflowContext) -> str:
    return hold


@step
async def total(payments: list[bytes], ctx: WorkflowContext) -> int:
    return len(payments)


async def undo_of_pay(done: Completed[str, bytes], ctx: WorkflowContext) -> None: ...


async def doubt_of_pay(tried: Attempted[str, bytes], ctx: WorkflowContext) -> None: ...


async def undo_of_pay_in_transaction(
    done: Completed[str, bytes], ctx: WorkflowContext, db: object
) -> None: ...


async def undo_that_answers(done: Completed[int, str], ctx: WorkflowContext) -> str:
    return ""


async def undo_without_context(done: Completed[int, str]) -> None: ...


async def probe_of_pay(
    tried: Attempted[str, bytes], ctx: WorkflowContext
) -> Happened[bytes] | NotHappened | Unknown:
    return Unknown()


async def probe_of_other_output(
    tried: Attempted[int, str], ctx: WorkflowContext
) -> Happened[bytes] | NotHappened | Unknown:
    return Unknown()


async def probe_that_says_yes(tried: Attempted[int, str], ctx: WorkflowContext) -> bool:
    return True


def shout(text: str) -> str:
    return text.upper()


def many(order: int) -> list[str]:
    return []


def is_large(order: int) -> bool:
    return order > 100


def is_long(text: str) -> bool:
    return len(text) > 100


async def is_long_later(text: str) -> bool:
    return True


def route_by_int(order: int, ctx: WorkflowContext) -> str:
    return ""


async def route_later(hold: str, ctx: WorkflowContext) -> str:
    return ""


def bytes_of_view(v: View) -> bytes:
    return b""


async def text_of_view_later(v: View) -> str:
    return ""


saga = Saga("s", version=1, body=hold >> pay)
verdict = Signal("verdict", int)

wrong_neighbour = hold >> ship  # E:
wrong_neighbour_after_two = hold >> pay >> pay  # E:
join_of_wrong_parts = hold >> (pay | pay) >> ship  # E:
different_inputs = hold | pay  # E:
third_of_another_input = pay | pay | hold  # E:

hold.compensation(undo_of_pay)  # E:
hold.compensation_on_doubt(doubt_of_pay)  # E:
hold.compensation(undo_that_answers)  # E:
hold.compensation(undo_without_context)  # E:
hold.compensation(retries=3)(undo_of_pay)  # E:
hold.compensation_on_doubt(timeout=5)(doubt_of_pay)  # E:
hold.compensation_on_doubt(undo_of_pay)  # E:
hold.compensation(hold)  # E:
hold.compensation(undo_of_pay_in_transaction)  # E:
hold.compensation(retries=3)(undo_of_pay_in_transaction)  # E:
hold.compensation_on_doubt(undo_of_pay_in_transaction)  # E:
hold.probe(probe_of_pay)  # E:
hold.probe(probe_of_other_output)  # E:
hold.probe(probe_that_says_yes)  # E:
hold.probe(retries=3)(probe_of_pay)  # E:
undone = hold.undo(undo_of_pay)  # E:
undone_by_a_step = hold.undo(pay)  # E:
undone_with_a_function = hold.undo_with(undo_of_pay, lambda done: done)  # E:
undone_far_with_what_it_does_not_take = hold.undo_with(far, lambda done: b"")  # E:
undone_in_doubt_with_another = hold.undo_with(ship, lambda d: b"", on_doubt=lambda t: "")  # E:
far_without_a_topic = remote("a", input=str, output=str)  # E:
not_a_chain_from_afar = far >> far_number  # E:
undone_with_what_it_does_not_take = hold.undo_with(ship, lambda done: done.output)  # E:
pay.compensation(doubt_of_pay)  # E:
not_a_pair = Compensation(((hold, undo_of_pay), (pay, None)))  # E:
not_a_chain = Compensation(((hold, None), (ship, None)))  # E:
a_list_of_pairs = Compensation([(hold, None), (pay, None)])  # E:
a_pair_of_functions = Compensation(((shout, None),))  # E:

without_inner = Retry(max_retries=3)  # E:
without_inner_either = Timeout(after=3)  # E:
without_inner_too = Scope()  # E:
wrapper_in_mid_chain = hold >> Retry(ship)  # E:
wrapper_round_a_function = Retry(shout)  # E:
cache_as_a_stage = hold >> Cache(ttl=60)  # E:
class_as_a_stage = hold >> Retry  # E:
one_exception = hold.retry(on=OSError)  # E:
no_time = hold.timeout("5")  # E:
key_of_another_type = Cache(hold, 60, key=is_long)  # E:
key_that_is_no_text = hold.cache(60, key=lambda order: order)  # E:
no_number = Budget(hold, "much")  # E:

bare_lambda = hold >> (lambda text: text.upper())  # E:
bare_function = hold >> shout  # E:
bare_function_beside = pay | shout  # E:
saga_as_a_stage = hold >> saga  # E:
signal_as_a_stage = hold >> verdict  # E:
lambda_of_a_wrong_type = hold.map(lambda text: text + 1)  # E:
function_of_a_wrong_type = ship.map(shout)  # E:
pure_of_a_step = pure(hold)  # E:
wrong_after_pure = pure(many) >> pay  # E:

flow_of_another_type: Primitive[int, float] = hold >> pay  # E:
three: Parallel[str, bytes, bytes] = pay | pay | pay  # E:

fallback_of_another_output = Fallback(pay, [again]) >> ship  # E:
fallback_of_another_input = hold >> Fallback(again, [hold])  # E:
fallback_as_another_type: Primitive[str, bytes] = Fallback(pay, [again])  # E:
fallback_of_a_function = Fallback(again, [shout])  # E:
fluent_fallback_of_another_output = pay.fallback(again)  # E:
route_of_another_input = Router({"a": again, "b": hold}, lambda v, ctx: "a")  # E:
route_of_another_output = Router({"a": pay, "b": again}, lambda v, ctx: "a") >> ship  # E:
route_of_a_function = Router({"a": shout}, lambda v, ctx: "a")  # E:
router_of_another_input = Router({"a": again}, route_by_int)  # E:
router_that_is_async = Router({"a": again}, route_later)  # E:
router_that_gives_a_number = Router({"a": again}, lambda v, ctx: 5)  # E:
when_otherwise_differs = when(is_long, then=pay, otherwise=again) >> ship  # E:
when_without_otherwise = when(is_long, then=pay)  # E:
when_of_another_input = when(is_large, then=again)  # E:
when_that_is_async = when(is_long_later, then=again)  # E:
when_of_a_function = when(is_long, then=shout)  # E:

sleep_hides_nothing = hold >> sleep(5) >> ship  # E:
sleep_first_hides_nothing = sleep(5) >> hold >> ship  # E:
sleep_of_no_time = sleep("5")  # E:
wait_of_another_type = verdict.wait() >> pay  # E:
each_of_no_list = ship >> each(pay)  # E:
each_of_a_wrong_list = pure(many) >> each(ship)  # E:
each_gives_a_list = each(pay) >> ship  # E:
each_gives_another_list = each(again) >> total  # E:
each_of_a_function = each(shout)  # E:
loop_of_two_types = loop(hold, until=is_long, max_iterations=5)  # E:
loop_without_a_bound = loop(again, until=is_long)  # E:
loop_until_another_type = loop(again, until=is_large, max_iterations=5)  # E:
loop_until_later = loop(again, until=is_long_later, max_iterations=5)  # E:
loop_of_a_function = loop(shout, until=is_long, max_iterations=5)  # E:
keep_is_a_pair = hold.keep() >> pay  # E:
keep_of_another_pair: Primitive[int, tuple[str, int]] = hold.keep()  # E:
using_another_type = pay.using(lambda v: 5)  # E:
using_bytes = pay.using(bytes_of_view)  # E:
using_the_output_of_another = pay.using(lambda v: v.output(pay))  # E:
using_later = pay.using(text_of_view_later)  # E:
child_of_another_type = hold >> saga.child()  # E:
key_of_a_child = saga.child(key=is_long)  # E:


@step  # E:
def no_context(order: int) -> str:
    return ""


@step(executor="process", once="yes")  # E:
def once_is_no_text(order: int, ctx: WorkflowContext) -> str:
    return ""


@transactional  # E:
async def no_database(order: int, ctx: WorkflowContext) -> str:
    return ""


@transactional  # E:
def not_async(order: int, ctx: WorkflowContext, db: object) -> str:
    return ""


transactional(once=True)  # E:


@flow  # E:
async def no_flow(order: int) -> str:
    return ""


@flow  # E:
def plain_flow(order: int, f: Flow) -> str:
    return ""


@flow
async def asks(order: int, f: Flow) -> str:
    await f.run(pay, order)  # E:
    number: int = await f.run(hold, order)  # E:
    await f.run(shout, "")  # E:
    await f.run(saga, order)  # E:
    text: str = await f.receive(verdict)  # E:
    await f.receive("verdict")  # E:
    await f.sleep("5")  # E:
    return text * number


wrong_after_a_flow = asks >> hold  # E:


@step
async def reads(order: int, ctx: WorkflowContext) -> int:
    wrong: int = ctx.output(hold)  # E:
    ctx.attempt = 7  # E:
    WorkflowContext(corelation_id="c")  # E:
    return wrong


async def begin(orchestrator: Orchestrator, other: Handle[Any]) -> None:
    await orchestrator.start(saga, "not an int")  # E:
    handle = await orchestrator.start(saga, 7)
    text: str = await handle.result()  # E:
    await handle.signal(verdict, "yes")  # E:
    await other.signal("verdict", 5)  # E:
    print(text)


async def simulated(sim: Simulator) -> None:
    await sim.run(saga, "not an int")  # E:
    sim.advance("5")  # E:
    sim.advance(timedelta(days=1))

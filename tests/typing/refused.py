"""What both type checkers must refuse, each on the line that says so at its end."""

from __future__ import annotations

from orchestrator import (
    Attempted,
    Compensation,
    Completed,
    Orchestrator,
    Parallel,
    Primitive,
    Retry,
    Saga,
    Timeout,
    WorkflowContext,
    step,
)


@step
async def hold(order: int, ctx: WorkflowContext) -> str:
    return str(order)


@step
async def pay(hold: str, ctx: WorkflowContext) -> bytes:
    return hold.encode()


@step
async def ship(payment: bytes, ctx: WorkflowContext) -> float:
    return 0.5


async def undo_of_pay(done: Completed[str, bytes], ctx: WorkflowContext) -> None: ...


async def doubt_of_pay(tried: Attempted[str, bytes], ctx: WorkflowContext) -> None: ...


async def undo_that_answers(done: Completed[int, str], ctx: WorkflowContext) -> str:
    return ""


def shout(text: str) -> str:
    return text.upper()


saga = Saga("s", version=1, body=hold >> pay)

wrong_neighbour = hold >> ship  # E:
wrong_neighbour_after_two = hold >> pay >> pay  # E:
join_of_wrong_parts = hold >> (pay | pay) >> ship  # E:
different_inputs = hold | pay  # E:
third_of_another_input = pay | pay | hold  # E:

hold.compensation(undo_of_pay)  # E:
hold.compensation_on_doubt(doubt_of_pay)  # E:
hold.compensation(undo_that_answers)  # E:
undone = hold.undo(undo_of_pay)  # E:
pay.compensation(doubt_of_pay)  # E:
not_a_pair = Compensation(((hold, undo_of_pay), (pay, None)))  # E:
not_a_chain = Compensation(((hold, None), (ship, None)))  # E:

without_inner = Retry(max_retries=3)  # E:
without_inner_either = Timeout(after=3)  # E:
wrapper_in_mid_chain = hold >> Retry(ship)  # E:

bare_lambda = hold >> (lambda text: text.upper())  # E:
bare_function = hold >> shout  # E:
lambda_of_a_wrong_type = hold.map(lambda text: text + 1)  # E:
function_of_a_wrong_type = ship.map(shout)  # E:

flow: Primitive[int, float] = hold >> pay  # E:
three: Parallel[str, bytes, bytes] = pay | pay | pay  # E:


@step  # E:
def no_context(order: int) -> str:
    return ""


@step
async def reads(order: int, ctx: WorkflowContext) -> int:
    wrong: int = ctx.output(hold)  # E:
    ctx.attempt = 7  # E:
    WorkflowContext(corelation_id="c")  # E:
    return wrong


async def begin(orchestrator: Orchestrator) -> None:
    await orchestrator.start(saga, "not an int")  # E:
    handle = await orchestrator.start(saga, 7)
    text: str = await handle.result()  # E:
    print(text)

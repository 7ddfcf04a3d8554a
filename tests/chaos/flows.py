"""The sagas of the chaos: bank transfers in every shape, and some that nobody can carry.

Every step moves money in the ledger under its own key, and says in its output what it moved.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator import (
    Attempted,
    Completed,
    Flow,
    Happened,
    NotHappened,
    Permanent,
    Saga,
    Signal,
    WorkflowContext,
    each,
    flow,
    pure,
    sleep,
    step,
)
from tests.chaos.ledger_client import Ledger, RefusedError


@dataclass(frozen=True)
class Transfer:
    """What a saga is asked to do. *pause* and *started* are for those who wait."""

    ref: str
    source: str
    target: str
    cents: int
    pause: float = 0.0
    started: float = 0.0


@dataclass(frozen=True)
class Moved:
    """What a step did."""

    ref: str
    source: str
    target: str
    cents: int
    receipt: str
    to: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a person said."""

    approved: bool


async def _move(
    ctx: WorkflowContext, op: str, ref: str, source: str, target: str, cents: int, to: str = ""
) -> Moved:
    try:
        receipt = await ctx.use(Ledger).do(
            ref, ctx.saga_id, op, ctx.idempotency_key, source, target, cents
        )
    except RefusedError as error:
        raise Permanent(str(error)) from error
    return Moved(ref, source, target, cents, receipt, to)


async def _take_back(ctx: WorkflowContext, op: str, ref: str, key: str) -> None:
    try:
        await ctx.use(Ledger).undo(ref, ctx.saga_id, op, ctx.idempotency_key, key)
    except RefusedError as error:
        raise Permanent(str(error)) from error


def transit(ref: str) -> str:
    """The account where money of one transfer is on its way."""
    return f"transit:{ref}"


# ---------------------------------------------------------------------------- steps


@step(timeout=20)
async def debit(order: Transfer, ctx: WorkflowContext) -> Moved:
    place = transit(order.ref)
    return await _move(ctx, "debit", order.ref, order.source, place, order.cents, to=order.target)


@debit.compensation_on_doubt(timeout=20)
async def give_back(tried: Attempted[Transfer, Moved], ctx: WorkflowContext) -> None:
    await _take_back(ctx, "debit", tried.input.ref, tried.key)


@step(timeout=20)
async def credit(taken: Moved, ctx: WorkflowContext) -> Moved:
    place = transit(taken.ref)
    return await _move(ctx, "credit", taken.ref, place, taken.to, taken.cents, to=taken.to)


@credit.probe(timeout=20, retries=50)
async def was_it_credited(
    tried: Attempted[Moved, Moved], ctx: WorkflowContext
) -> Happened[Moved] | NotHappened:
    taken = tried.input
    receipt = await ctx.use(Ledger).probe(taken.ref, ctx.saga_id, "credit", tried.key)
    if receipt is None:
        return NotHappened()
    place = transit(taken.ref)
    return Happened(Moved(taken.ref, place, taken.to, taken.cents, receipt, taken.to))


@credit.compensation(timeout=20)
async def debit_again(done: Completed[Moved, Moved], ctx: WorkflowContext) -> None:
    await _take_back(ctx, "credit", done.input.ref, done.key)


@step(timeout=20)
async def fee(taken: Moved, ctx: WorkflowContext) -> Moved:
    place = transit(taken.ref)
    return await _move(ctx, "fee", taken.ref, place, "bank", taken.cents // 10)


@step(timeout=20)
async def rest(taken: Moved, ctx: WorkflowContext) -> Moved:
    place, cents = transit(taken.ref), taken.cents - taken.cents // 10
    return await _move(ctx, "rest", taken.ref, place, taken.to, cents)


@fee.compensation_on_doubt(timeout=20)
async def refund_fee(tried: Attempted[Moved, Moved], ctx: WorkflowContext) -> None:
    await _take_back(ctx, "fee", tried.input.ref, tried.key)


@rest.compensation_on_doubt(timeout=20)
async def refund_rest(tried: Attempted[Moved, Moved], ctx: WorkflowContext) -> None:
    await _take_back(ctx, "rest", tried.input.ref, tried.key)


@step(timeout=20)
async def line(part: Transfer, ctx: WorkflowContext) -> Moved:
    op = part.ref.rpartition("#")[2]
    ref = part.ref.partition("#")[0]
    return await _move(ctx, f"line{op}", ref, part.source, part.target, part.cents)


@line.compensation_on_doubt(timeout=20)
async def strike_line(tried: Attempted[Transfer, Moved], ctx: WorkflowContext) -> None:
    ref, _, op = tried.input.ref.partition("#")
    await _take_back(ctx, f"line{op}", ref, tried.key)


async def _tell(ctx: WorkflowContext, ref: str) -> str:
    return (await _move(ctx, "notify", ref, "", "", 0)).receipt


@step(timeout=20)
async def notify(order: Any, ctx: WorkflowContext) -> str:
    return await _tell(ctx, ctx.input.ref)


@step(timeout=20)
async def hold(order: Transfer, ctx: WorkflowContext) -> Transfer:
    await _move(ctx, "hold", order.ref, order.source, f"escrow:{order.ref}", 1)
    return order


@hold.compensation_on_doubt(timeout=20)
async def unhold(tried: Attempted[Transfer, Transfer], ctx: WorkflowContext) -> None:
    await _take_back(ctx, "hold", tried.input.ref, tried.key)


@step(timeout=20)
async def settle(done: Any, ctx: WorkflowContext) -> Moved:
    order: Transfer = ctx.input
    return await _move(ctx, "settle", order.ref, f"escrow:{order.ref}", order.source, 1)


@settle.compensation_on_doubt(timeout=20)
async def unsettle(tried: Attempted[Any, Moved], ctx: WorkflowContext) -> None:
    await _take_back(ctx, "settle", ctx.input.ref, tried.key)


# ---------------------------------------------------------------------------- healthy sagas

AGAIN = {"max_retries": 6, "initial": 0.1, "cap": 0.5}
said = Signal("verdict", Verdict)


def approved(verdict: Verdict) -> Verdict:
    if not verdict.approved:
        raise Permanent("a person said no")
    return verdict


def lines(order: Transfer) -> list[Transfer]:
    share = order.cents // 4
    return [
        Transfer(f"{order.ref}#{n}", order.source, order.target, share, order.pause)
        for n in range(4)
    ]


def _sure(one: Any) -> Any:
    return one.retry(AGAIN["max_retries"], initial=AGAIN["initial"], cap=AGAIN["cap"])


quiet = notify.without_undo("a message cannot be taken back")

transfer = Saga("chaos-transfer", version=1, body=_sure(debit) >> _sure(credit) >> _sure(quiet))

approval = Saga(
    "chaos-approval",
    version=1,
    body=_sure(debit)
    >> said.wait(within=240)
    >> pure(approved)
    >> _sure(credit).using(lambda v: v.output(debit)),
)

sleeper = Saga(
    "chaos-sleeper",
    version=1,
    body=_sure(debit) >> sleep(2.5) >> _sure(credit) >> sleep(0.3) >> _sure(quiet),
)

fan = Saga("chaos-fan", version=1, body=_sure(debit) >> (_sure(fee) | _sure(rest)) >> _sure(quiet))

batch = Saga(
    "chaos-batch", version=1, body=pure(lines) >> each(_sure(line), concurrency=3) >> _sure(quiet)
)

family = Saga(
    "chaos-family", version=1, body=_sure(hold) >> transfer.child() >> _sure(settle) >> _sure(quiet)
)

sealed = Saga(
    "chaos-pivot",
    version=1,
    body=_sure(debit) >> _sure(credit).pivot() >> quiet.retry(1_000, initial=0.1, cap=1),
)


# ---------------------------------------------------------------------------- what must be parked


@step(timeout=20)
async def murder(order: Transfer, ctx: WorkflowContext) -> str:
    """Ends its process every time, but never that of the one who only starts sagas."""
    await _move(ctx, "murder", order.ref, "", "", 0)
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@step(timeout=20)
async def mumble(order: Transfer, ctx: WorkflowContext) -> float:
    """Has its effect, and an output that no JSON can hold."""
    await _move(ctx, "mumble", order.ref, "", "", 0)
    return float("nan")


@mumble.compensation(timeout=20)
async def unmumble(done: Completed[Transfer, float], ctx: WorkflowContext) -> None:
    await _take_back(ctx, "mumble", done.input.ref, done.key)


@flow
async def dither(order: Transfer, f: Flow) -> str:
    """Code that asks chance: when it is read again, it says something else."""
    await f.run(quiet, secrets.token_hex(8))
    await f.sleep(3.0)
    return "never"


deadly = Saga("chaos-deadly", version=1, body=murder.without_undo("it does nothing"))
unsayable = Saga("chaos-unsayable", version=1, body=mumble)
fickle = Saga("chaos-fickle", version=1, body=dither)

HEALTHY = (transfer, approval, sleeper, fan, batch, family, sealed)
POISON = (deadly, unsayable, fickle)
SAGAS = (*HEALTHY, *POISON)


@asynccontextmanager
async def resources(dsn: str) -> AsyncIterator[Mapping[type, object]]:
    """The ledger, where the environment says it is."""
    yield {Ledger: Ledger(int(os.environ["CHAOS_LEDGER_PORT"]))}

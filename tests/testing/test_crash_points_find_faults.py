"""What people get wrong in their own sagas, and what `crash_points` says about it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from orchestrator import (
    Attempted,
    Completed,
    Flow,
    Happened,
    NotHappened,
    Permanent,
    Saga,
    Step,
    WorkflowContext,
    each,
    flow,
    pure,
    step,
)
from orchestrator.testing import CrashPointFailed, Report, crash_points

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.DefinitionWarning")


@dataclass
class Bank:
    """Keeps an answer for each key for ever, as banks do, and counts its payments."""

    balance: int = 1_000
    number: int = 0
    paid: dict[str, int] = field(default_factory=dict)
    returned: dict[str, int] = field(default_factory=dict)

    def charge(self, key: str, cents: int) -> str:
        if key not in self.paid:
            self.paid[key] = cents
            self.balance -= cents
            self.number += 1
        return key

    def refund(self, payment: str, key: str) -> None:
        if payment in self.paid and key not in self.returned:
            self.returned[key] = self.paid[payment]
            self.balance += self.paid[payment]


@dataclass
class Stock:
    """Articles on a shelf."""

    left: int = 10
    held: dict[str, str] = field(default_factory=dict)

    def hold(self, key: str, sku: str) -> None:
        if key not in self.held:
            self.held[key] = sku
            self.left -= 1

    def release(self, key: str) -> None:
        if self.held.pop(key, None) is not None:
            self.left += 1


Act = Callable[[str, WorkflowContext], Any]
Undo = Callable[[Any, WorkflowContext], Any]


def fakes() -> dict[type, Any]:
    return {Bank: Bank(), Stock: Stock()}


def tried(saga: Saga[str, Any], **options: Any) -> Report:
    return crash_points(saga, "lamp", resources=fakes, **options)


def found(saga: Saga[str, Any], **options: Any) -> CrashPointFailed:
    with pytest.raises(CrashPointFailed) as caught:
        tried(saga, **options)
    assert "  effects" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 60, "one screen"
    return caught.value


def doing(name: str, act: Act, undo: Undo) -> Step[str, str]:
    """A step that does *act*, and is taken back by *undo*, done or in doubt."""

    async def action(sku: str, ctx: WorkflowContext) -> str:
        result = act(sku, ctx)
        return str(await result if asyncio.iscoroutine(result) else result)

    async def taken_back(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        undo(tried, ctx)

    made = step(name=name)(action)
    made.compensation_on_doubt(taken_back)
    return made


@step
async def look_up(sku: str, ctx: WorkflowContext) -> str:
    return sku


reads = look_up.without_undo("it only reads")


def pay_by_key(sku: str, ctx: WorkflowContext) -> str:
    return ctx.use(Bank).charge(ctx.idempotency_key, 100)


def refund_by_key(tried: Any, ctx: WorkflowContext) -> None:
    ctx.use(Bank).refund(tried.key, ctx.idempotency_key)


def saga(body: Any) -> Saga[str, Any]:
    return Saga("trade", version=1, body=body)


def test_a_bank_that_keeps_its_answers_and_numbers_for_ever_passes() -> None:
    assert tried(saga(doing("pay", pay_by_key, refund_by_key) >> reads)).points > 30


# ---------------------------------------------------------------------------- undo


def both(sku: str, ctx: WorkflowContext) -> str:
    ctx.use(Stock).hold(ctx.idempotency_key, sku)
    return ctx.use(Bank).charge(ctx.idempotency_key, 100)


def test_an_undo_that_forgets_one_of_two_services_is_found() -> None:
    reserve = doing("reserve", both, lambda t, ctx: ctx.use(Stock).release(t.key))
    error = found(saga(reserve >> reads))
    assert "the undo of reserve forgets a part" in error.problem
    assert "Bank.balance: 1000 → 900" in str(error)
    assert "Stock" not in str(error).partition("crash ")[0], "that one was taken back"


def test_an_undo_that_forgets_the_money_is_found() -> None:
    pay = doing("pay", pay_by_key, lambda t, ctx: ctx.use(Bank).paid.pop(t.key, None))
    error = found(saga(pay >> reads))
    assert "the undo of pay forgets a part" in error.problem
    assert "Bank.balance: 1000 → 900" in str(error)


def test_an_undo_that_forgets_one_of_two_entries_is_found() -> None:
    def hold_two(sku: str, ctx: WorkflowContext) -> str:
        ctx.use(Stock).held.update(
            {ctx.idempotency_key + "/a": sku, ctx.idempotency_key + "/b": sku}
        )
        return sku

    hold = doing("hold", hold_two, lambda t, ctx: ctx.use(Stock).held.pop(t.key + "/a", None))
    error = found(saga(hold >> reads))
    assert "forgets a part" in error.problem
    assert "/b']: (nothing) → 'lamp'" in str(error)


def test_an_undo_that_gives_back_once_more_at_each_call_is_found() -> None:
    def give_back(tried: Any, ctx: WorkflowContext) -> None:
        if tried.key in ctx.use(Bank).paid:
            ctx.use(Bank).balance += 100

    error = found(saga(doing("pay", pay_by_key, give_back) >> reads))
    assert "the undo of pay is not idempotent" in error.problem
    assert "the process died when the undo of pay was done, and nobody knew" in str(error)


def test_an_undo_with_a_fresh_key_is_found() -> None:
    def give_back(tried: Any, ctx: WorkflowContext) -> None:
        ctx.use(Bank).refund(tried.key, str(uuid4()))

    error = found(saga(doing("pay", pay_by_key, give_back) >> reads))
    assert "the undo of pay is not idempotent" in error.problem
    assert "Bank.balance: 1000 → 1100" in str(error)


@pytest.mark.parametrize("careful", [True, False])
def test_an_undo_that_needs_an_output_which_nobody_heard_is_found(careful: bool) -> None:
    def give_back(tried: Any, ctx: WorkflowContext) -> None:
        if careful and tried.output is None:
            return
        ctx.use(Bank).refund(tried.output.strip(), ctx.idempotency_key)

    @step
    async def pay(sku: str, ctx: WorkflowContext) -> str:
        return pay_by_key(sku, ctx)

    @pay.compensation_on_doubt
    async def back(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        give_back(tried, ctx)

    error = found(saga(pay >> reads))
    assert "pay was done, but its answer was lost" in str(error)
    if careful:
        assert "the undo of pay does nothing" in error.problem
    else:
        assert "the undo of pay fails whenever it is called" in error.problem
        assert "its undo gets output None" in str(error)
        assert "tried.key" in str(error)


def test_an_undo_that_would_fail_for_a_whole_day_is_told_at_once_and_on_one_screen() -> None:
    def break_down(tried: Any, ctx: WorkflowContext) -> None:
        raise RuntimeError("not today")

    error = found(saga(doing("pay", pay_by_key, break_down) >> reads))
    assert "the undo of pay fails whenever it is called" in error.problem
    assert "more like these" in str(error)
    assert "not today" in str(error)


# ---------------------------------------------------------------------------- effects


def test_an_effect_without_a_key_is_found() -> None:
    numbers = count()

    def pay(sku: str, ctx: WorkflowContext) -> str:
        return ctx.use(Bank).charge(f"payment-{next(numbers)}", 100)

    error = found(saga(doing("pay", pay, lambda t, ctx: None) >> reads))
    assert "pay is not idempotent" in error.problem
    assert "ctx.idempotency_key" in str(error)


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_a_death_between_an_effect_and_the_note_of_it_is_found(pause: float) -> None:
    @step
    async def pay(sku: str, ctx: WorkflowContext) -> str:
        bank = ctx.use(Bank)
        if ctx.idempotency_key not in bank.paid:
            bank.balance -= 100
            if pause:
                await asyncio.sleep(pause)
            bank.paid.update({ctx.idempotency_key: 100})
        return sku

    @pay.compensation_on_doubt
    async def back(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        bank = ctx.use(Bank)
        bank.balance += bank.paid.pop(tried.key, 0)

    error = found(saga(pay >> reads))
    assert "left something else behind than without that death" in error.problem
    assert "Bank.balance: 900 → 800" in str(error)
    if not pause:
        assert "the process died in the middle of pay" in error.problem
    assert found(saga(pay >> reads), only=error.only).problem == error.problem


def test_two_effects_with_a_key_each_pass_though_the_process_dies_between_them() -> None:
    @step
    async def reserve(sku: str, ctx: WorkflowContext) -> str:
        return str(both(sku, ctx))

    @reserve.compensation_on_doubt
    async def back(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        ctx.use(Stock).release(tried.key)
        ctx.use(Bank).refund(tried.key, ctx.idempotency_key)

    plain = tried(saga(doing("pay", pay_by_key, refund_by_key) >> reads))
    assert tried(saga(reserve >> reads)).points > plain.points


def test_a_step_that_fails_between_its_two_effects_is_found() -> None:
    def sold_out(sku: str, ctx: WorkflowContext) -> str:
        ctx.use(Bank).charge(ctx.idempotency_key, 100)
        raise Permanent("sold out")

    error = found(saga(doing("reserve", sold_out, refund_by_key) >> reads))
    assert "reserve raised Permanent, which says that nothing happened" in error.problem
    assert "in part, Bank.balance: 1000 → 900" in str(error)


def test_a_step_that_fails_for_good_after_the_pivot_is_found_when_it_is_named() -> None:
    @step
    async def pay(sku: str, ctx: WorkflowContext) -> str:
        return pay_by_key(sku, ctx)

    @pay.probe
    async def ask(tried: Attempted[str, str], ctx: WorkflowContext) -> Happened[str] | NotHappened:
        return Happened(tried.key) if tried.key in ctx.use(Bank).paid else NotHappened()

    ship = saga(pay.pivot() >> reads)
    tried(ship)
    error = found(ship, fails={"look_up": Permanent("sold out")})
    assert "stuck" in error.problem
    assert "after the point of no return, Permanent: sold out" in str(error)


# ---------------------------------------------------------------------------- composition


def test_a_branch_that_needs_what_its_sibling_wrote_is_found() -> None:
    def pay_if_held(sku: str, ctx: WorkflowContext) -> str:
        if sku not in ctx.use(Stock).held:
            raise Permanent("nothing is held")
        return pay_by_key(sku, ctx)

    hold = doing("hold", lambda sku, ctx: ctx.use(Stock).hold(sku, sku), release_input)
    pay = doing("pay", pay_if_held, refund_by_key)
    error = found(saga((hold | pay) >> pure(str)))
    assert "the end depends on which of two parallel parts comes first" in error.problem
    assert "the last of hold, pay began first" in str(error)


def test_a_branch_that_pays_less_when_its_sibling_was_faster_is_found() -> None:
    def pay_less(sku: str, ctx: WorkflowContext) -> str:
        cents = 90 if sku in ctx.use(Stock).held else 100
        return ctx.use(Bank).charge(ctx.idempotency_key, cents)

    hold = doing("hold", lambda sku, ctx: ctx.use(Stock).hold(sku, sku), release_input)
    error = found(saga((hold | doing("pay", pay_less, refund_by_key)) >> pure(str)))
    assert "what is left behind depends on which of two parallel parts" in error.problem
    assert "Bank.balance: 910 → 900" in str(error)


def release_input(tried: Any, ctx: WorkflowContext) -> None:
    ctx.use(Stock).release(tried.input)


def test_a_flow_that_asks_for_something_else_each_time_is_found() -> None:
    pay = doing("pay", pay_by_key, refund_by_key)
    chance = random.Random(7)

    @flow
    async def buy(sku: str, f: Flow) -> str:
        return await f.run(pay, f"{sku}-{chance.random()}")

    error = found(saga(buy))
    assert "stuck" in error.problem
    assert "is not the code that made the record: request 0 was Step:pay" in str(error)


def test_children_that_share_a_key_are_found() -> None:
    seat = Saga("seat", 1, doing("pay", pay_by_key, refund_by_key))
    error = found(saga(pure(list) >> each(seat.child(key=lambda letter: "seat"))))
    assert "its key is taken by another instance" in error.problem
    assert "child(key=lambda item: ...)" in str(error)


# ---------------------------------------------------------------------------- no false alarms


def test_a_step_whose_answer_is_lost_by_itself_and_whose_probe_knows_passes() -> None:
    @step
    async def pay(sku: str, ctx: WorkflowContext) -> str:
        pay_by_key(sku, ctx)
        raise ConnectionResetError("the answer was lost")

    @pay.probe
    async def ask(tried: Attempted[str, str], ctx: WorkflowContext) -> Happened[str] | NotHappened:
        return Happened(tried.key) if tried.key in ctx.use(Bank).paid else NotHappened()

    @pay.compensation
    async def back(done: Completed[str, str], ctx: WorkflowContext) -> None:
        refund_by_key(done, ctx)

    assert tried(saga(pay >> reads)).points > 10


def test_an_effect_that_broke_off_and_that_nobody_takes_back_is_found() -> None:
    @step
    async def pay(sku: str, ctx: WorkflowContext) -> str:
        pay_by_key(sku, ctx)
        raise ConnectionResetError("the answer was lost")

    @pay.compensation_on_doubt
    async def back(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        """Without an output there is nothing to refund."""

    assert "the undo of pay does nothing" in found(saga(pay >> reads)).problem


def test_a_probe_that_says_that_something_happened_when_nothing_did_is_found() -> None:
    @step
    async def pay(sku: str, ctx: WorkflowContext) -> str:
        raise ConnectionResetError("nothing was sent")

    @pay.probe
    async def ask(tried: Attempted[str, str], ctx: WorkflowContext) -> Happened[str]:
        return Happened("paid")

    error = found(saga(pay >> reads))
    assert "pay counts as done, but it never took effect" in error.problem
    assert "@pay.probe" in str(error)


def test_a_slow_step_that_only_reads_is_not_blamed_for_what_is_done_beside_it() -> None:
    @step
    async def read_slowly(sku: str, ctx: WorkflowContext) -> str:
        await asyncio.sleep(1)
        return sku

    @step
    async def pay(sku: str, ctx: WorkflowContext) -> str:
        await asyncio.sleep(0.5)
        return pay_by_key(sku, ctx)

    @pay.compensation_on_doubt
    async def back(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
        refund_by_key(tried, ctx)

    assert tried(saga((read_slowly | pay) >> pure(str))).points > 10

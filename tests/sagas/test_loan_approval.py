"""A loan on a real database with a real worker: who decides, what time does, and a ledger with one entry."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import pytest

from orchestrator import Saga, Status
from sagas.loan_approval import HEAD, OFFICER, Application, Loan, Verdict, loan_approval, verdict
from sagas.participants.credit import CreditBureau
from tests.sagas.hasty_loans import SAGAS
from tests.sagas.office import ended, held, kill, office, process, seen, stands, started
from tests.sagas.town import Town

ACCOUNTS = "SELECT FROM participants.bank_account FOR UPDATE"
FUND = 5_000_000
YES = Verdict(approved=True, by="eve")


def hasty(**periods: float) -> Saga[Application, Loan]:
    given = {name: timedelta(seconds=value) for name, value in periods.items()}
    return loan_approval(**{"cooling_off": timedelta(milliseconds=100), **given})


def small(applicant: str = "ann", cents: int = 200_000, income: int = 300_000) -> Application:
    return Application(
        loan_id="l1", applicant=applicant, cents=cents, months=12, income_cents=income
    )


def large() -> Application:
    return small(cents=1_000_000)


async def is_lent(town: Town, cents: int) -> None:
    books = await town.books()
    assert books.problems == ()
    assert books.live["loan"] == books.live["reservation"] == books.live["enquiry"] == {"l1"}
    assert books.half_lent == frozenset()
    assert await town.account("ann") == (100_000 + cents, 0, 0)
    assert await town.fund() == FUND - cents
    assert await town.value("SELECT count(*) FROM participants.lender_ledger") == 1


async def nothing_is_left(town: Town) -> None:
    books = await town.books()
    assert books.problems == ()
    assert books.live["loan"] == books.live["reservation"] == books.live["enquiry"] == frozenset()
    assert books.live["mail"] == frozenset()
    assert await town.account("ann") == (100_000, 0, 0)
    assert await town.fund() == FUND


async def test_a_small_loan_is_decided_by_the_score_and_paid_out_once(town: Town, dsn: str) -> None:
    saga = hasty()
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.start(saga, small())
        assert await handle.result(within=20) == Loan(loan_id="l1", cents=200_000, entry=1)
        types = [entry.type async for entry in handle.history()]
    assert "WaitStarted" not in types
    assert "TimerFired" in types
    await is_lent(town, 200_000)
    assert (await town.books()).live["mail"] == frozenset()


@pytest.mark.parametrize(
    ("application", "reason"),
    [
        (small("tim"), "score says no: score 400"),
        (small(income=1_000), "cannot be paid back from this income"),
        (small("nobody"), "there is no file on nobody"),
        (small("old"), "account old is closed"),
        (small(cents=450_000, income=10**9), "fund retail has"),
    ],
    ids=["score", "income", "stranger", "closed account", "empty fund"],
)
async def test_a_loan_that_cannot_be_leaves_nothing_behind(
    town: Town, dsn: str, application: Application, reason: str
) -> None:
    if reason.startswith("fund"):
        await town.lender.reserve("other", "retail", FUND - 1, key="other")
    saga = hasty()
    async with office(dsn, saga) as orchestrator:
        status, why = await ended(await orchestrator.start(saga, application))
    assert status is Status.COMPENSATED
    assert reason in why
    await town.lender.release("other")
    await nothing_is_left(town)


async def test_a_large_loan_waits_for_a_person_who_says_yes(town: Town, dsn: str) -> None:
    saga = hasty()
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.start(saga, large())
        await seen(handle, "WaitStarted")
        assert (await town.books()).live["mail"] == {OFFICER}
        await handle.signal(verdict, YES)
        assert (await handle.result(within=20)).cents == 1_000_000
    await is_lent(town, 1_000_000)


async def test_a_verdict_that_comes_before_it_is_asked_for_counts(town: Town, dsn: str) -> None:
    saga = hasty()
    async with started(dsn, saga, large()) as handle:
        await handle.signal(verdict, YES)
        async with office(dsn, saga):
            await handle.result(within=20)
    await is_lent(town, 1_000_000)


async def test_a_person_who_says_no_ends_it(town: Town, dsn: str) -> None:
    saga = hasty()
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.start(saga, large())
        await handle.signal(verdict, Verdict(approved=False, by="eve", note="no collateral"))
        status, why = await ended(handle)
    assert status is Status.COMPENSATED
    assert "eve says no: no collateral" in why
    await nothing_is_left(town)


async def test_where_the_officer_is_silent_the_head_of_credit_decides(town: Town, dsn: str) -> None:
    saga = hasty(patience=1)
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.start(saga, large())
        await seen(handle, "WaitStarted", times=2)
        await handle.signal(verdict, YES)
        assert (await handle.result(within=20)).cents == 1_000_000
    books = await town.books()
    assert (books.live["mail"], books.undone["mail"]) == ({HEAD}, {OFFICER})
    await is_lent(town, 1_000_000)


async def test_where_nobody_decides_it_ends_after_both_periods(town: Town, dsn: str) -> None:
    saga = hasty(patience=0.3)
    async with office(dsn, saga) as orchestrator:
        status, why = await ended(await orchestrator.start(saga, large()))
    assert status is Status.COMPENSATED
    assert "no signal 'verdict' within 0.3 s" in why
    await nothing_is_left(town)
    assert (await town.books()).undone["mail"] == {OFFICER, HEAD}


async def test_the_deadline_of_the_whole_ends_it_where_it_waits(town: Town, dsn: str) -> None:
    saga = hasty(deadline=1)
    async with office(dsn, saga) as orchestrator:
        status, why = await ended(await orchestrator.start(saga, large()))
    assert status is Status.COMPENSATED
    assert "deadline" in why
    await nothing_is_left(town)


async def test_who_changes_their_mind_while_it_cools_off_gets_no_loan(town: Town, dsn: str) -> None:
    saga = hasty(cooling_off=3_600)
    async with office(dsn, saga) as orchestrator:
        handle = await orchestrator.start(saga, small())
        await seen(handle, "TimerSet")
        assert (await town.books()).half_lent == {"l1"}
        await handle.cancel("the roof can wait", actor="ann")
        status, why = await ended(handle)
    assert status is Status.COMPENSATED
    assert "the roof can wait" in why
    await nothing_is_left(town)


class MuteBureau(CreditBureau):
    """Notes each enquiry, or not, and never answers."""

    notes = True
    calls = 0

    async def enquire(self, loan_id: str, applicant: str, *, key: str) -> int:
        self.calls += 1
        if self.notes:
            await super().enquire(loan_id, applicant, key=key)
        raise ConnectionResetError("the line went dead")


@pytest.mark.parametrize("notes", [True, False], ids=["it was noted", "it was lost"])
async def test_an_enquiry_without_an_answer_is_looked_up(town: Town, dsn: str, notes: bool) -> None:
    bureau = MuteBureau(town.pool)
    bureau.notes = notes
    saga = hasty()
    async with office(dsn, saga, instead={CreditBureau: bureau}) as orchestrator:
        status, _ = await ended(await orchestrator.start(saga, small()), within=30)
    assert status is (Status.COMPLETED if notes else Status.COMPENSATED)
    await (is_lent(town, 200_000) if notes else nothing_is_left(town))


async def test_a_bureau_that_is_down_is_left_alone_and_the_loans_wait(town: Town, dsn: str) -> None:
    bureau = MuteBureau(town.pool)
    bureau.notes = False
    saga = hasty()
    async with office(dsn, saga, instead={CreditBureau: bureau}) as orchestrator:
        wanted = [small().model_copy(update={"loan_id": f"l{n}"}) for n in range(6)]
        handles = [await orchestrator.start(saga, one) for one in wanted]
        await asyncio.gather(*(seen(handle, "StepHeld") for handle in handles))
        assert 5 <= bureau.calls <= 10
        for handle in handles:
            await handle.cancel("enough")
        assert {status for status, _ in [await ended(h) for h in handles]} == {Status.COMPENSATED}
    await nothing_is_left(town)


@pytest.mark.crash
async def test_a_worker_that_is_killed_in_the_payout_pays_nothing_and_the_next_one_pays_once(
    town: Town, dsn: str
) -> None:
    async with started(dsn, SAGAS[0], small()) as handle:
        with process(dsn, "tests.sagas.hasty_loans") as first:
            async with held(town.pool, ACCOUNTS):
                await stands(town.pool, "lender_ledger")
                await kill(first)
        with process(dsn, "tests.sagas.hasty_loans") as second:
            assert (await handle.result(within=40)).cents == 200_000
            assert second.end(signal.SIGTERM) == 0
    await is_lent(town, 200_000)

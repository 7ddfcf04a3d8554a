"""A loan: check the credit, let a score or a person decide, wait a cooling-off period, pay out exactly once.

What it shows: a circuit breaker and a probe, a choice between an automatic and a human verdict, a
signal with a deadline and an escalation, a durable timer, SQL that commits together with the event that
says so, a pivot, and a deadline for the whole. Whoever changes their mind while it cools off cancels it.

    saga start loan-approval --input '{"loan_id": "small", "applicant": "bo-castro", "cents": 200000,
        "months": 12, "income_cents": 300000}'
    saga start loan-approval --input '{"loan_id": "large", "applicant": "bo-castro", "cents": 3000000,
        "months": 60, "income_cents": 300000}'
    saga signal ID verdict '{"approved": true, "by": "ann"}'
"""

from __future__ import annotations

from datetime import timedelta

import asyncpg
from pydantic import BaseModel, Field

from orchestrator import (
    Attempted,
    Fallback,
    Happened,
    NotHappened,
    Permanent,
    Saga,
    Signal,
    WorkflowContext,
    pure,
    sleep,
    step,
    transactional,
    when,
)
from sagas.participants.credit import CreditBureau
from sagas.participants.lender import Lender, pay_out
from sagas.participants.mail import Mail

FUND = "retail"
OFFICER, HEAD = "loan-officer@bank.example", "head-of-credit@bank.example"
SMALL_CENTS = 500_000
SOUND_SCORE = 600
PATIENCE = timedelta(days=2)
COOLING_OFF = timedelta(seconds=30)
"""Fourteen days where it is in earnest; short here, so that one can watch it pass."""
DEADLINE = timedelta(days=30)


class Declined(Permanent):
    """There will be no loan; asking again does not help."""


class Application(BaseModel, frozen=True, extra="forbid"):
    """Who asks for how much, and how it would be paid back."""

    loan_id: str = Field(min_length=1)
    applicant: str
    cents: int = Field(gt=0, le=100_000_000)
    months: int = Field(gt=0, le=360)
    income_cents: int = Field(ge=0)


class Assessed(BaseModel, frozen=True):
    """An application with what the credit bureau says."""

    application: Application
    score: int


class Verdict(BaseModel, frozen=True, extra="forbid"):
    """Yes or no, and who says so."""

    approved: bool
    by: str = Field(min_length=1)
    note: str = ""


class Funds(BaseModel, frozen=True):
    """The money is set aside."""

    reservation: str
    application: Application


class Loan(BaseModel, frozen=True):
    """Paid out."""

    loan_id: str
    cents: int
    entry: int


verdict = Signal("verdict", Verdict)


def validate(application: Application) -> Application:
    """No more than two fifths of the income may go into a loan."""
    if application.cents * 5 > application.income_cents * 2 * application.months:
        raise Declined(f"{application.cents} cents cannot be paid back from this income")
    return application


@step(retries=3, timeout=10)
async def check_credit(application: Application, ctx: WorkflowContext) -> Assessed:
    """Ask the credit bureau, which writes down that it was asked."""
    score = await ctx.use(CreditBureau).enquire(
        application.loan_id, application.applicant, key=ctx.idempotency_key
    )
    return Assessed(application=application, score=score)


@check_credit.compensation_on_doubt
async def withdraw_enquiry(tried: Attempted[Application, Assessed], ctx: WorkflowContext) -> None:
    """An enquiry that led to nothing shall not count against anybody."""
    await ctx.use(CreditBureau).withdraw(tried.key)


@check_credit.probe
async def was_it_checked(
    tried: Attempted[Application, Assessed], ctx: WorkflowContext
) -> Happened[Assessed] | NotHappened:
    """The bureau knows its enquiries by their keys."""
    score = await ctx.use(CreditBureau).enquired(tried.key)
    if score is None:
        return NotHappened()
    return Happened(Assessed(application=tried.input, score=score))


def is_small(assessed: Assessed) -> bool:
    """Small enough to be decided by the score alone."""
    return assessed.application.cents <= SMALL_CENTS


def decide_by_score(assessed: Assessed) -> Verdict:
    """The automatic verdict."""
    return Verdict(
        approved=assessed.score >= SOUND_SCORE, by="score", note=f"score {assessed.score}"
    )


@step(retries=3, timeout=30)
async def ask_officer(assessed: Assessed, ctx: WorkflowContext) -> str:
    """Tell a loan officer that a verdict is wanted."""
    return await _ask(OFFICER, assessed, ctx)


@step(retries=3, timeout=30)
async def ask_head(assessed: Assessed, ctx: WorkflowContext) -> str:
    """Nobody answered: tell the head of credit."""
    return await _ask(HEAD, assessed, ctx)


@ask_officer.compensation_on_doubt
@ask_head.compensation_on_doubt
async def never_mind(tried: Attempted[Assessed, str], ctx: WorkflowContext) -> None:
    """The question is settled, or nobody waits for the answer any more."""
    await ctx.use(Mail).mark_failed(tried.key)


async def _ask(whom: str, assessed: Assessed, ctx: WorkflowContext) -> str:
    subject = f"Loan {assessed.application.loan_id}"
    text = f"{assessed.application.cents} cents, score {assessed.score}: saga {ctx.saga_id}"
    return await ctx.use(Mail).send(whom, subject, text, key=ctx.idempotency_key)


def must_be_approved(given: Verdict) -> Verdict:
    """A no ends it here."""
    if not given.approved:
        raise Declined(f"{given.by} says no: {given.note or 'no reason was given'}")
    return given


@step(retries=3, timeout=30)
async def reserve_funds(assessed: Assessed, ctx: WorkflowContext) -> Funds:
    """Set the money aside, so that it is there when the applicant has slept on it."""
    wanted = assessed.application
    reservation = await ctx.use(Lender).reserve(
        wanted.loan_id, FUND, wanted.cents, key=ctx.idempotency_key
    )
    return Funds(reservation=reservation, application=wanted)


@reserve_funds.compensation_on_doubt
async def release_funds(tried: Attempted[Assessed, Funds], ctx: WorkflowContext) -> None:
    """Lend the money to others."""
    await ctx.use(Lender).release(tried.key)


@transactional(retries=3, timeout=30)
async def payout(funds: Funds, ctx: WorkflowContext, db: asyncpg.Connection) -> Loan:
    """Write the ledger: one transaction with the event that says so, hence exactly once."""
    wanted = funds.application
    entry = await pay_out(db, wanted.loan_id, wanted.applicant, wanted.cents)
    return Loan(loan_id=wanted.loan_id, cents=wanted.cents, entry=entry)


def loan_approval(
    *,
    cooling_off: timedelta = COOLING_OFF,
    patience: timedelta = PATIENCE,
    deadline: timedelta = DEADLINE,
) -> Saga[Application, Loan]:
    """The saga with periods of one's own."""
    ask_a_person = Fallback(
        ask_officer >> verdict.wait(within=patience), [ask_head >> verdict.wait(within=patience)]
    )
    return Saga(
        "loan-approval",
        version=1,
        body=(
            pure(validate)
            >> check_credit.circuit("credit-bureau", failures=5, reset=60)
            >> when(is_small, then=pure(decide_by_score), otherwise=ask_a_person)
            >> pure(must_be_approved)
            >> reserve_funds.using(lambda v: v.output(check_credit))
            >> sleep(cooling_off)
            >> payout.pivot()
        ),
        deadline=deadline,
    )


saga = loan_approval()

"""An assistant: understand, plan, check for safety, then let tools do the tasks, and report.

What it shows: model calls by tier (a small model first, a large one where that fails), remembered, limited
in rate, broken off when the model is down, and paid for out of two budgets; tools as routes, each with
an undo. Who asks a model is `ModelClient`; a client without network (`sagas/models.py`) stands in for it.

    saga start assistant --wait --input '{"user": "ann@example.org", "text": "note buy milk"}'
    saga start assistant --wait --input '{"user": "ann@example.org",
        "text": "remind me at 09:30 to call Tim and then mail tim@example.org about lunch"}'
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter

from orchestrator import (
    Attempted,
    Fallback,
    Permanent,
    Primitive,
    Router,
    Saga,
    WorkflowContext,
    each,
    pure,
    step,
)
from sagas.models import large, small, think
from sagas.participants.desk import Desk
from sagas.participants.mail import Mail

CENTS_EACH, CENTS_A_DAY = 10, 5_000
REMEMBERED = timedelta(hours=1)

A = TypeVar("A")
B = TypeVar("B")


class NotUnderstood(Permanent):
    """The model's answer is no use; the same question would get the same answer."""


class Unsafe(Permanent):
    """This shall not be done."""


class Ask(BaseModel, frozen=True, extra="forbid"):
    """What a user says."""

    user: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    text: str = Field(min_length=1, max_length=2_000)


class Intent(BaseModel, frozen=True):
    """The single wishes in it."""

    wishes: list[str] = Field(min_length=1, max_length=20)


class Task(BaseModel, frozen=True):
    """One call of one tool."""

    tool: Literal["note", "reminder", "mail"]
    text: str
    due: str = ""
    to: str = ""


class Plan(BaseModel, frozen=True):
    """What is to be done."""

    tasks: list[Task] = Field(min_length=1, max_length=20)


class Safety(BaseModel, frozen=True):
    """Whether that may be done."""

    safe: bool
    why: str = ""


class Checked(BaseModel, frozen=True):
    """A plan that was looked at."""

    plan: Plan
    safety: Safety


class Outcome(BaseModel, frozen=True):
    """What a tool did."""

    tool: str
    reference: str


class Report(BaseModel, frozen=True):
    """What the user is told."""

    text: str
    outcomes: list[Outcome]


# ---------------------------------------------------------------------------- thinking

_WISHES: TypeAdapter[list[str]] = TypeAdapter(list[str])
_TASKS: TypeAdapter[list[Task]] = TypeAdapter(list[Task])
_SAFETY: TypeAdapter[Safety] = TypeAdapter(Safety)


@step(timeout=10)
async def parse_intent(ask: Ask, ctx: WorkflowContext) -> Intent:
    """What does the user want?"""
    return _intent(await think("small", "intent", ask.text, ctx))


@step(timeout=60)
async def parse_intent_well(ask: Ask, ctx: WorkflowContext) -> Intent:
    """The same by the large model."""
    return _intent(await think("large", "intent", ask.text, ctx))


@step(timeout=10)
async def make_plan(intent: Intent, ctx: WorkflowContext) -> Plan:
    """Which tools serve these wishes?"""
    return _plan(intent, await think("small", "plan", json.dumps(intent.wishes), ctx))


@step(timeout=60)
async def make_plan_well(intent: Intent, ctx: WorkflowContext) -> Plan:
    """The same by the large model."""
    return _plan(intent, await think("large", "plan", json.dumps(intent.wishes), ctx))


@step(timeout=60)
async def check_safety(plan: Plan, ctx: WorkflowContext) -> Checked:
    """May this be done? No small model is asked that."""
    answer = await think("large", "safety", plan.model_dump_json(), ctx)
    return Checked(plan=plan, safety=_understood(_SAFETY, answer))


@step(timeout=10)
async def report(outcomes: list[Outcome], ctx: WorkflowContext) -> Report:
    """Say what was done."""
    text = json.dumps([outcome.reference for outcome in outcomes])
    return Report(text=await think("small", "report", text, ctx), outcomes=outcomes)


def plain_report(outcomes: list[Outcome]) -> Report:
    """What was done is done, also where no model can put it into words."""
    text = ", ".join(outcome.reference for outcome in outcomes)
    return Report(text=f"Done: {text}.", outcomes=outcomes)


def _intent(answer: str) -> Intent:
    return Intent(wishes=_understood(_WISHES, answer))


def _plan(intent: Intent, answer: str) -> Plan:
    tasks = _understood(_TASKS, answer)
    if len(tasks) < len(intent.wishes):
        raise NotUnderstood(f"no tool does all of this: {', '.join(intent.wishes)}")
    return Plan(tasks=tasks)


def _understood(kind: TypeAdapter[A], answer: str) -> A:
    try:
        return kind.validate_json(answer)
    except ValueError as error:
        raise NotUnderstood(f"the model says: {answer}") from error


# ---------------------------------------------------------------------------- doing


def must_be_safe(checked: Checked) -> list[Task]:
    """The tasks, if they may be done."""
    if not checked.safety.safe:
        raise Unsafe(checked.safety.why or "no reason was given")
    return checked.plan.tasks


def tool_of(task: Task, ctx: WorkflowContext) -> str:
    """The route of a task."""
    return task.tool


@step(retries=3, timeout=30)
async def write_note(task: Task, ctx: WorkflowContext) -> Outcome:
    """Keep it on the user's desk."""
    note = await ctx.use(Desk).write_note(_user(ctx), task.text, key=ctx.idempotency_key)
    return Outcome(tool=task.tool, reference=note)


@write_note.compensation_on_doubt
async def tear_up_note(tried: Attempted[Task, Outcome], ctx: WorkflowContext) -> None:
    """Throw it away."""
    await ctx.use(Desk).tear_up(tried.key)


@step(retries=3, timeout=30)
async def set_reminder(task: Task, ctx: WorkflowContext) -> Outcome:
    """Have the user reminded."""
    reminder = await ctx.use(Desk).remind(_user(ctx), task.due, task.text, key=ctx.idempotency_key)
    return Outcome(tool=task.tool, reference=reminder)


@set_reminder.compensation_on_doubt
async def forget_reminder(tried: Attempted[Task, Outcome], ctx: WorkflowContext) -> None:
    """Nothing is due any more."""
    await ctx.use(Desk).forget(tried.key)


@step(retries=3, timeout=30)
async def send_mail(task: Task, ctx: WorkflowContext) -> Outcome:
    """Write to somebody for the user."""
    mail = await ctx.use(Mail).send(
        task.to, task.text, f"From {_user(ctx)}: {task.text}", key=ctx.idempotency_key
    )
    return Outcome(tool=task.tool, reference=mail)


@send_mail.compensation_on_doubt
async def take_back_mail(tried: Attempted[Task, Outcome], ctx: WorkflowContext) -> None:
    """Record that the mail promised too much."""
    await ctx.use(Mail).mark_failed(tried.key)


def _user(ctx: WorkflowContext) -> str:
    ask: Ask = ctx.input
    return ask.user


# ---------------------------------------------------------------------------- the pipeline

intent_parser = Fallback(
    small(parse_intent).cache(REMEMBERED, key=lambda ask: ask.text),
    [large(parse_intent_well).cache(REMEMBERED, key=lambda ask: ask.text)],
)
planner = Fallback(small(make_plan).cache(REMEMBERED), [large(make_plan_well).cache(REMEMBERED)])
safety_checker = large(check_safety)
router = Router(
    {"note": write_note, "reminder": set_reminder, "mail": send_mail}, router_fn=tool_of
)


def from_the_purse(part: Primitive[A, B]) -> Primitive[A, B]:
    """*part*, for as long as there is money left today, for all requests together."""
    return part.budget(CENTS_A_DAY, name="assistant", per=timedelta(days=1))


thinking = from_the_purse(intent_parser >> planner >> safety_checker).budget(CENTS_EACH)
reporter = Fallback(from_the_purse(small(report)), [pure(plain_report)])

saga = Saga(
    "assistant",
    version=1,
    body=thinking >> pure(must_be_safe) >> each(router, concurrency=3) >> reporter,
)

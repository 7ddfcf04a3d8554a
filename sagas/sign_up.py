"""A sign-up: create the user, send the welcome mail, activate the account; written as pairs of do and undo."""

from __future__ import annotations

from pydantic import BaseModel, Field

from orchestrator import Attempted, Compensation, Completed, Saga, WorkflowContext, step
from sagas.participants.mail import Mail
from sagas.participants.users import Users


class SignUp(BaseModel, frozen=True, extra="forbid"):
    """Who wants to join."""

    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    name: str = Field(min_length=1)


class User(BaseModel, frozen=True):
    """Created, not active yet."""

    user_id: str
    email: str
    name: str


class Welcomed(BaseModel, frozen=True):
    """The welcome mail is in the post."""

    user_id: str
    mail_id: str


class Account(BaseModel, frozen=True):
    """Open for use."""

    user_id: str


@step(retries=3, timeout=30)
async def create_user(form: SignUp, ctx: WorkflowContext) -> User:
    """Make the user."""
    user_id = await ctx.use(Users).create(form.email, form.name, key=ctx.idempotency_key)
    return User(user_id=user_id, email=form.email, name=form.name)


async def delete_user(done: Completed[SignUp, User], ctx: WorkflowContext) -> None:
    """Mark the user as deleted; the e-mail address is free again."""
    await ctx.use(Users).delete(done.key)


@create_user.compensation_on_doubt
async def delete_user_if_created(tried: Attempted[SignUp, User], ctx: WorkflowContext) -> None:
    """The same for a user that may exist."""
    await ctx.use(Users).delete(tried.key)


@step(retries=3, timeout=30)
async def send_email(user: User, ctx: WorkflowContext) -> Welcomed:
    """Send the welcome mail."""
    mail_id = await ctx.use(Mail).send(
        user.email, "Welcome", f"Dear {user.name}, your account is ready.", key=ctx.idempotency_key
    )
    return Welcomed(user_id=user.user_id, mail_id=mail_id)


async def mark_email_failed(done: Completed[User, Welcomed], ctx: WorkflowContext) -> None:
    """Record that the mail promised too much."""
    await ctx.use(Mail).mark_failed(done.key)


@send_email.compensation_on_doubt
async def mark_email_failed_if_sent(tried: Attempted[User, Welcomed], ctx: WorkflowContext) -> None:
    """The same for a mail that may be out."""
    await ctx.use(Mail).mark_failed(tried.key)


@step(retries=3, timeout=30)
async def activate_account(welcomed: Welcomed, ctx: WorkflowContext) -> Account:
    """Let the user in."""
    await ctx.use(Users).activate(welcomed.user_id, key=ctx.idempotency_key)
    return Account(user_id=welcomed.user_id)


async def deactivate_account(done: Completed[Welcomed, Account], ctx: WorkflowContext) -> None:
    """Shut the user out."""
    await ctx.use(Users).deactivate(done.key)


@activate_account.compensation_on_doubt
async def deactivate_account_if_active(
    tried: Attempted[Welcomed, Account], ctx: WorkflowContext
) -> None:
    """The same for an account that may be active."""
    await ctx.use(Users).deactivate(tried.key)


saga = Saga(
    "sign-up",
    version=1,
    body=Compensation(
        (
            (create_user, delete_user),
            (send_email, mark_email_failed),
            (activate_account, deactivate_account),
        )
    ),
)

"""What an exception says about an attempt: nothing happened, or nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from orchestrator.domain.commands import Failed, InDoubt, Outcome
from orchestrator.domain.events import Failure
from orchestrator.domain.steps import Step
from orchestrator.errors import Permanent, Retryable

MESSAGE_LIMIT = 2_000
_CAUSES = 20
_LONGEST = timedelta(days=36_500)
"""What an action may ask to be waited for: a due time must be a date."""


def outcome_of(error: BaseException, step: Step[Any, Any] | None = None) -> Outcome:
    """Classify what an action raised.

    In doubt by default: time-outs, and connection errors except a refused one, because there
    nothing was sent. `doubt_on=` of the step replaces this list.
    """
    failure = failure_of(error)
    doubtful = _is_doubtful(error, None if step is None else step.doubt_on)
    return InDoubt(failure) if doubtful else Failed(failure)


def _is_doubtful(error: BaseException, doubt_on: tuple[type[BaseException], ...] | None) -> bool:
    if isinstance(error, Permanent | Retryable):
        return False
    if doubt_on is not None and isinstance(error, doubt_on):
        return True
    if isinstance(error, BaseExceptionGroup):
        # What failed beside it says nothing about the one call that may have come through.
        return any(_is_doubtful(one, doubt_on) for one in error.exceptions)
    if doubt_on is not None or isinstance(error, ConnectionRefusedError):
        return False
    # A cancellation that nobody asked for cut the action off somewhere in the middle. Known by its
    # name, because the class belongs to an event loop, and none belongs in here.
    cancelled = type(error).__name__ == "CancelledError"
    return cancelled or isinstance(error, TimeoutError | ConnectionError)


def failure_of(error: BaseException, *, permanent: bool = False) -> Failure:
    """The recordable form of an exception, with a bounded message and a bounded number of causes."""
    return _failure_of(error, iter(range(_CAUSES)), permanent=permanent)


def _failure_of(error: BaseException, room: Iterator[int], *, permanent: bool = False) -> Failure:
    causes: tuple[Failure, ...] = ()
    if isinstance(error, BaseExceptionGroup):
        # Zipped this way round, so that room is taken only for a cause that is there.
        causes = tuple(_failure_of(e, room) for e, _ in zip(error.exceptions, room))  # noqa: B905 - the shorter one ends it
    after = error.after if isinstance(error, Retryable) and error.after else None
    return Failure(
        type(error).__name__,
        _message(error),
        tuple(f"{k.__module__}.{k.__qualname__}" for k in type(error).__mro__[:-1]),
        permanent or _is_permanent(error) or any(cause.permanent for cause in causes),
        None if after is None else min(after, _LONGEST).total_seconds(),
        causes,
    )


def _is_permanent(error: BaseException) -> bool:
    # Validation fails the same way on every attempt, whoever's library it is.
    return isinstance(error, Permanent) or type(error).__name__ == "ValidationError"


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        text = f"(its message cannot be read: {type(broken).__name__})"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]}…"

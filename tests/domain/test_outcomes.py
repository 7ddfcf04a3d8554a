"""What an exception says about an attempt."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from orchestrator.domain.commands import Failed, InDoubt
from orchestrator.domain.outcomes import MESSAGE_LIMIT, failure_of, outcome_of
from orchestrator.domain.steps import Step, step
from orchestrator.errors import Permanent, Retryable


class ValidationError(Exception):
    """Like that of any validation library."""


class Mute(Exception):  # noqa: N818 - its name does not matter
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def act(value: Any, ctx: Any) -> Any:
    return value


def doubting(*kinds: type[BaseException]) -> Step[Any, Any]:
    return step(name="a", doubt_on=kinds)(act)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionError(),
        ConnectionResetError(),
        BrokenPipeError(),
        asyncio.CancelledError(),
        ExceptionGroup("both", [ValueError(), TimeoutError()]),
        ExceptionGroup("deep", [ExceptionGroup("in", [ConnectionResetError()])]),
        ExceptionGroup("declined beside a call that may have come through",
                       [Permanent("no"), TimeoutError()]),
    ],
)  # fmt: skip
def test_timeouts_and_lost_connections_leave_doubt(error: BaseException) -> None:
    assert isinstance(outcome_of(error), InDoubt)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        OSError("disk"),
        ConnectionRefusedError(),
        socket.gaierror("no such host"),
        Permanent("declined"),
        Retryable("busy"),
        ExceptionGroup("both", [ValueError(), ConnectionRefusedError()]),
        SystemExit(3),
    ],
)
def test_other_errors_say_that_nothing_happened(error: BaseException) -> None:
    assert isinstance(outcome_of(error), Failed)


def test_doubt_on_replaces_the_list() -> None:
    assert isinstance(outcome_of(ValueError(), doubting(ValueError)), InDoubt)
    assert isinstance(outcome_of(TimeoutError(), doubting(ValueError)), Failed)
    assert isinstance(outcome_of(TimeoutError(), doubting()), Failed)
    group = ExceptionGroup("g", [KeyError(), ValueError()])
    assert isinstance(outcome_of(group, doubting(ValueError)), InDoubt)


def test_the_authors_own_words_outweigh_doubt_on() -> None:
    step_ = doubting(Exception)
    assert isinstance(outcome_of(Permanent("no"), step_), Failed)
    assert isinstance(outcome_of(Retryable("later"), step_), Failed)


def test_a_failure_names_the_class_and_all_its_kinds() -> None:
    failure = failure_of(ConnectionResetError("gone"))
    assert (failure.type, failure.message) == ("ConnectionResetError", "gone")
    assert failure.kinds == (
        "builtins.ConnectionResetError",
        "builtins.ConnectionError",
        "builtins.OSError",
        "builtins.Exception",
        "builtins.BaseException",
    )


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (Permanent("no"), True),
        (ValidationError(), True),
        (ValueError(), False),
        (Retryable("later"), False),
        (ExceptionGroup("g", [ValueError(), Permanent("no")]), True),
        (ExceptionGroup("g", [ValueError()]), False),
    ],
)
def test_permanent_is_what_no_retry_can_help(error: BaseException, permanent: bool) -> None:
    assert failure_of(error).permanent is permanent


def test_retryable_carries_its_wait_in_seconds() -> None:
    assert failure_of(Retryable("later", after=2.5)).retry_after == 2.5
    assert failure_of(Retryable("later")).retry_after is None


def test_a_group_keeps_its_causes() -> None:
    failure = failure_of(ExceptionGroup("both", [ValueError("a"), KeyError("b")]))
    assert [cause.type for cause in failure.causes] == ["ValueError", "KeyError"]


def test_a_message_is_bounded() -> None:
    message = failure_of(ValueError("x" * 100_000)).message
    assert len(message) == MESSAGE_LIMIT + 1
    assert message.endswith("…")


def test_a_message_that_cannot_be_read_or_written_does_no_harm() -> None:
    assert failure_of(Mute()).message == "(its message cannot be read: RuntimeError)"
    failure_of(ValueError("\udcff")).message.encode()

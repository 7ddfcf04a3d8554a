"""What becomes of a message, by where its instance stands: the one table of every inbox."""

from __future__ import annotations

from orchestrator.domain.events import Status
from orchestrator.errors import InvalidInputError
from orchestrator.ports import INBOX_LIMIT, REPAIRS, MessageKind, Reply


def kind_of(text: str) -> MessageKind:
    """The kind that *text* names. Raises InvalidInputError when there is none."""
    try:
        return MessageKind(text)
    except ValueError as error:
        kinds = ", ".join(MessageKind)
        raise InvalidInputError(
            f"there are no messages of kind {text!r}; there are {kinds}"
        ) from error


def reply_to(kind: MessageKind, status: Status, *, pivoted: bool, unread: int) -> Reply:
    """The answer to a message that is new to an instance at *status*.

    Only signals can be too many: the others are few by nature, and are what a person needs to
    get an instance out of the trouble that its signals made.
    """
    answer = _answer(kind, status, pivoted=pivoted)
    if answer is Reply.ACCEPTED and kind is MessageKind.SIGNAL and unread >= INBOX_LIMIT:
        return Reply.FULL
    return answer


def _answer(kind: MessageKind, status: Status, *, pivoted: bool) -> Reply:
    match status:
        case Status.COMPENSATED | Status.TERMINATED:
            return Reply.TOO_LATE
        case Status.COMPLETED:
            return Reply.ACCEPTED if kind is MessageKind.UNDO else Reply.TOO_LATE
        case Status.STUCK:
            refused = kind in (MessageKind.CANCEL, MessageKind.UNDO)
            return Reply.STUCK if refused else Reply.ACCEPTED
        case Status.PENDING | Status.RUNNING | Status.WAITING | Status.COMPENSATING:
            if kind in REPAIRS or kind is MessageKind.UNDO:
                return Reply.NOT_STUCK
            if kind is MessageKind.CANCEL and pivoted and status is not Status.COMPENSATING:
                return Reply.TOO_LATE
            return Reply.ACCEPTED


def frees(kind: MessageKind, status: Status) -> bool:
    """Whether an accepted message sets an instance that is at rest in motion again."""
    if status is Status.STUCK:
        return kind in REPAIRS or kind is MessageKind.TERMINATE
    return status is Status.COMPLETED and kind is MessageKind.UNDO

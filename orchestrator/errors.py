"""Every exception of the product, as one tree.

OrchestratorError
├── DefinitionError              the flow is wrong; raised while it is built, never at run time
├── InvalidInputError            what was handed in is not valid; nothing was stored
│   └── PayloadTooLargeError     a payload is over the limit
│       └── EventTooLargeError   an event would be too large to be published
├── NotFoundError                no saga, instance or module of that name
├── ConflictError                the request contradicts what is stored
│   ├── KeyConflictError         the business key is taken by another input
│   └── TooLateError             the instance has ended, or can no longer turn round
├── HistoryError                 this history cannot be used
│   ├── IllegalTransitionError   an event that cannot follow this state; nothing changed
│   ├── DefinitionChangedError   recorded by another shape of the saga than the one at hand
│   └── TamperedHistoryError     the hash chain does not verify
├── UnrecordableError            a value cannot be written as JSON and read back
├── OwnershipLostError           stop working on this instance now; somebody else may have it
├── SagaFailedError              the instance ended without its result
├── StepError                    a part that a @flow asked for failed; raised inside of the flow
└── UnavailableError             a database or broker cannot be reached or used
    ├── UnknownOutcomeError      a commit was sent and its answer was lost
    ├── BusyError                the database is there, but full, locked or overloaded
    ├── SchemaError              the database is not migrated, or newer than this code
    ├── PublishError             the broker refused; the event table keeps the record
    │   └── FencedError          another relay publishes this shard now
    └── PositionError            log and broker disagree on what was published; a person decides

Authors of actions have two words of their own: `Permanent` and `Retryable`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class OrchestratorError(Exception):
    """Something in the orchestrator went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else self.__class__.__doc__)


class DefinitionError(OrchestratorError):
    """The flow is wrong."""


class DefinitionWarning(UserWarning):
    """The flow can come to a point where a person is needed; see the message for the mend."""


class InvalidInputError(OrchestratorError):
    """The input is not valid; nothing was stored.

    `problems` holds one line for each field that is wrong.
    """

    def __init__(self, message: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class PayloadTooLargeError(InvalidInputError):
    """A payload is larger than the limit."""


class EventTooLargeError(PayloadTooLargeError):
    """An event would be larger than can be published; it was not recorded.

    `index` is its place among the events that were to be recorded with it.
    """

    def __init__(self, message: str, index: int = 0) -> None:
        super().__init__(message)
        self.index = index


class NotFoundError(OrchestratorError):
    """There is nothing of that name.

    `nearest` holds the names that come closest.
    """

    def __init__(self, message: str | None = None, nearest: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.nearest = tuple(nearest)


class ConflictError(OrchestratorError):
    """The request contradicts what is stored."""


class KeyConflictError(ConflictError):
    """This business key was used with another input."""


class TooLateError(ConflictError):
    """The instance has ended or can no longer turn round."""


class HistoryError(OrchestratorError):
    """This history cannot be used."""


class IllegalTransitionError(HistoryError):
    """This event cannot follow this state; nothing changed."""


class DefinitionChangedError(HistoryError):
    """The instance was begun with another shape of its saga."""


class TamperedHistoryError(HistoryError):
    """The hash chain does not verify."""


class UnrecordableError(OrchestratorError):
    """The value cannot be written as JSON and read back."""


class OwnershipLostError(OrchestratorError):
    """Another owner may have this instance; stop working on it."""


class SagaFailedError(OrchestratorError):
    """The instance ended without its result.

    `status` is the status it ended in.
    """

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


class StepError(OrchestratorError):
    """A part of a flow failed.

    `kind` is the name of the exception's class; `kinds` those of its bases too. `permanent`
    says that no retry can help.
    """

    def __init__(
        self, message: str, kind: str = "", kinds: Sequence[str] = (), *, permanent: bool = False
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.kinds = tuple(kinds)
        self.permanent = permanent
        self.failure: object = None


class UnavailableError(OrchestratorError):
    """A database or broker cannot be reached or used."""


class UnknownOutcomeError(UnavailableError):
    """A commit was sent and its answer was lost."""


class BusyError(UnavailableError):
    """The database is there, but full, locked or overloaded; nothing was written."""


class SchemaError(UnavailableError):
    """The database schema does not fit this code; run `saga migrate`."""


class PublishError(UnavailableError):
    """The broker refused the records; the event table keeps them."""


class FencedError(PublishError):
    """Another relay publishes this shard now; this one adds nothing to it any more."""


class PositionError(UnavailableError):
    """The log and the broker disagree on what was published; a person decides where to go on."""


class Permanent(Exception):  # noqa: N818 - a word that authors raise, not an error of ours
    """Raised by an action: it definitely did nothing, and no retry can help."""


class Retryable(Exception):  # noqa: N818 - a word that authors raise, not an error of ours
    """Raised by an action: it definitely did nothing; try again, at the earliest `after`."""

    def __init__(self, message: str = "", *, after: timedelta | float | None = None) -> None:
        super().__init__(message)
        self.after = timedelta(seconds=after) if isinstance(after, int | float) else after

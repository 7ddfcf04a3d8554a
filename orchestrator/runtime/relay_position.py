"""Where a shard goes on: what the broker has, checked against what the log says it should have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import PositionError
from orchestrator.ports import Cursor, FeedEvent, Mark

_CHOICE = (
    "nothing is published until you say where to go on: run `saga relay --go-on-from broker` "
    "(publish what follows the broker's mark) or `--go-on-from database` (publish what follows "
    "the checkpoint) once"
)


class Trust(StrEnum):
    """Whom to believe when log and broker disagree. A person says so."""

    NEITHER = "neither"
    BROKER = "broker"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Start:
    """Read on after `position`. Up to `published`, events would show that the broker lost some."""

    position: int
    published: int

    def verify(self, events: Iterable[FeedEvent]) -> None:
        """PositionError when one of *events* was published before, and the broker has it not."""
        for event in events:
            row = event.row
            if row.position <= self.published:
                raise PositionError(
                    f"the broker's mark is {self.position}, but the checkpoint {self.published} "
                    f"says that saga {row.saga_id} version {row.version} was published: topics "
                    f"of the broker were removed or are those of another broker; {_CHOICE}"
                )


def settle(cursor: Cursor, mark: Mark) -> Start:
    """Where to go on. The broker's mark counts; a checkpoint that cannot be is a PositionError.

    A checkpoint follows each mark before the next batch begins, and moves on by itself only where
    the shard has no events. So it is where the last batch began, or past its end.
    """
    if mark.epoch > cursor.epoch:
        raise PositionError(
            f"the broker has a batch of epoch {mark.epoch}, and the database has only come to "
            f"epoch {cursor.epoch}: an older state of the database was brought back, or another "
            f"database publishes to these topics; {_CHOICE}"
        )
    if cursor.position < mark.position and cursor.position != mark.since:
        raise PositionError(
            f"the broker's last batch goes from {mark.since} to {mark.position}, and the "
            f"checkpoint {cursor.position} is neither: an older state of the database was brought "
            f"back, or another database publishes to these topics; {_CHOICE}"
        )
    return Start(mark.position, max(cursor.position, mark.position))


def is_amiss(cursor: Cursor, mark: Mark) -> bool:
    """Whether checkpoint and mark may disagree, so that it matters who is believed."""
    if cursor.position > mark.position:
        return True
    try:
        settle(cursor, mark)
    except PositionError:
        return True
    return False

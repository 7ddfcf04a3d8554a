"""Whether a log is as it was written."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain.chain import genesis, link
from orchestrator.errors import TamperedHistoryError
from orchestrator.ports import EventRow


def check_chain(saga_id: str, rows: Sequence[EventRow], head: int) -> None:
    """Raise TamperedHistoryError naming the first event that was changed, lost or moved.

    *head* is the version at which the log ends, as its row says.
    """
    previous = genesis(saga_id)
    for expected, row in enumerate(rows, start=1):
        if row.version != expected:
            raise TamperedHistoryError(f"saga {saga_id}: event {expected} is missing")
        previous = link(
            previous, row.saga_id, row.version, row.type, row.node, row.attempt, row.epoch,
            row.recorded_at, row.meta, row.data,
        )  # fmt: skip
        if previous != row.hash:
            raise TamperedHistoryError(
                f"saga {saga_id}: event {row.version} ({row.type}) does not match "
                "its hash; it, or one before it, was changed after it was written"
            )
    if len(rows) != head:
        raise TamperedHistoryError(
            f"saga {saga_id}: the log ends at {len(rows)}, its row says {head}"
        )

"""Who works on what.

Lock order, everywhere: the worker's row, then saga rows by ascending id, then the feed's gate.
Claims alone take saga rows in any order, because they skip the locked ones and never wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from orchestrator.adapters.postgres.pool import Database, Record
from orchestrator.adapters.postgres.statements import sql
from orchestrator.domain.events import Status
from orchestrator.errors import OwnershipLostError
from orchestrator.ports import Claim, Definition, Owned


class PostgresWorkQueue:
    """orchestrator.ports.WorkQueue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, owner: str, limit: int, definitions: Sequence[Definition]) -> list[Claim]:
        rows = await self._database.fetch(
            sql("claim_sagas"),
            owner,
            limit,
            self._database.settings.namespace,
            [name for name, _ in definitions],
            [version for _, version in definitions],
        )
        if not rows:
            raise OwnershipLostError(f"worker {owner} is not in the fleet, or was retired from it")
        return [_claim(row) for row in rows if row["id"] is not None]

    async def reclaim(
        self, owner: str, saga_id: str, epoch: int, *, counts: bool = True
    ) -> Claim | None:
        rows = await self._database.fetch(sql("reclaim_saga"), owner, saga_id, epoch, counts)
        return _claim(rows[0]) if rows else None

    async def release(
        self,
        owner: str,
        saga_ids: Sequence[str],
        delay: timedelta = timedelta(0),
        *,
        untouched: bool = False,
    ) -> None:
        await self._database.fetch(sql("release_sagas"), owner, list(saga_ids), delay, untouched)

    async def owned(self, owner: str) -> list[Owned]:
        rows = await self._database.fetch(sql("list_owned"), owner)
        return [Owned(*row) for row in rows]


_STATUS = {status.value: status for status in Status}


def _claim(row: Record) -> Claim:
    (
        id_, name, version, fingerprint, epoch, head, status, inbox_seq, claims, at, context, input_,
        parent, parent_node, inbox_seen,
    ) = row  # fmt: skip
    return Claim(
        id_, name, version, fingerprint, epoch, head, _STATUS[status], inbox_seq, claims, at,
        input_, context, parent, parent_node, inbox_seen,
    )  # fmt: skip

"""Messages to instances, stored together with the news that they are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.adapters.postgres.pool import Database
from orchestrator.adapters.postgres.statements import sql
from orchestrator.domain.events import ENDED, Status
from orchestrator.ports import Message, Reply


class PostgresInbox:
    """orchestrator.ports.Inbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(
        self, saga_id: str, kind: str, payload: Mapping[str, Any], *, actor: str, dedupe_key: str
    ) -> Reply:
        rows = await self._database.commit_both(
            (sql("lock_saga"), (saga_id,)),
            (sql("send_message"), (saga_id, kind, json.dumps(dict(payload)), actor, dedupe_key)),
        )
        if not rows:
            return Reply.NOT_FOUND
        status = Status(rows[0]["status"])
        if status is Status.STUCK:
            return Reply.STUCK
        return Reply.TOO_LATE if status in ENDED else Reply(rows[1]["status"])

    async def read(self, saga_id: str, after: int) -> list[Message]:
        rows = await self._database.fetch(sql("read_inbox"), saga_id, after)
        return [
            Message(seq, kind, json.loads(payload), actor, sent_at)
            for seq, kind, payload, actor, sent_at in rows
        ]

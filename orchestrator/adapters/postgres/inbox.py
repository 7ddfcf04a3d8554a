"""Messages to instances, stored together with the news that they are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.adapters.answers import frees, kind_of, reply_to
from orchestrator.adapters.postgres.pool import Connection, Database
from orchestrator.adapters.postgres.statements import sql
from orchestrator.domain.events import Status
from orchestrator.ports import Message, Reply


class PostgresInbox:
    """orchestrator.ports.Inbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(
        self, saga_id: str, kind: str, payload: Mapping[str, Any], *, actor: str, dedupe_key: str
    ) -> Reply:
        asked, text = kind_of(kind), json.dumps(dict(payload))

        async def work(connection: Connection) -> Reply:
            """The lock of the row comes first: nothing moves the instance after the answer."""
            if not (rows := await connection.fetch(sql("lock_saga"), saga_id)):
                return Reply.NOT_FOUND
            status = Status(rows[0]["status"])
            answer = reply_to(asked, status, pivoted=rows[0]["pivoted"], unread=rows[0]["unread"])
            takes = answer is Reply.ACCEPTED
            [sent] = await connection.fetch(
                sql("send_message"), saga_id, asked.value, text, actor, dedupe_key,
                takes, takes and frees(asked, status),
            )  # fmt: skip
            return Reply.DUPLICATE if sent["known"] else answer

        return await self._database.transact(work)

    async def read(self, saga_id: str, after: int) -> list[Message]:
        rows = await self._database.fetch(sql("read_inbox"), saga_id, after)
        return [
            Message(seq, kind, json.loads(payload), actor, sent_at)
            for seq, kind, payload, actor, sent_at in rows
        ]

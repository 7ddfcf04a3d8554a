"""Starts: one row for each new instance and one for its input."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

from orchestrator.adapters.postgres.callers import connection_of
from orchestrator.adapters.postgres.pool import Database, Record
from orchestrator.adapters.postgres.statements import sql
from orchestrator.adapters.postgres.trouble import TROUBLE, in_our_words
from orchestrator.errors import UnavailableError, UnknownOutcomeError
from orchestrator.ports import StartAnswer, StartRequest

_Run = Callable[..., Awaitable[Sequence[Record]]]
"""What runs a statement with its arguments."""


class PostgresRequests:
    """orchestrator.ports.Requests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(
        self, batch: Sequence[StartRequest], within: object | None = None
    ) -> list[StartAnswer]:
        """As the port says. In a caller's transaction an error leaves that one to be rolled back.

        A key that another open transaction has taken makes the start wait for its end: callers
        commit soon after.
        """
        if not batch:
            return []
        if within is None:
            return await self._start(batch, self._database.commit, self._look_up)
        connection = await connection_of(within, self._database.where)

        async def run(statement: str, *args: object) -> Sequence[Record]:
            try:
                return await connection.fetch(
                    statement, *args, timeout=self._database.settings.command_timeout
                )
            except TROUBLE as error:
                raise in_our_words(error, self._database.where) from error

        return await self._start(batch, run, run)

    async def _start(
        self, batch: Sequence[StartRequest], store: _Run, find: _Run
    ) -> list[StartAnswer]:
        once: dict[str, StartRequest] = {}
        for request in batch:
            once.setdefault(request.saga_id, request)
        ordered = sorted(once.values(), key=lambda request: (request.name, request.key or ""))
        rows = await store(
            sql("start_sagas"), self._database.settings.namespace, *_columns(ordered)
        )
        created = {row["id"] for row in rows}
        new = {id(request) for request in ordered if request.saga_id in created}
        known = [request for request in batch if id(request) not in new]
        answers = await self._known(known, find) if known else {}
        return [
            answers[id(request)]
            if id(request) in answers
            else StartAnswer(request.saga_id, created=True)
            for request in batch
        ]

    async def _known(self, requests: Sequence[StartRequest], find: _Run) -> dict[int, StartAnswer]:
        """What requests ran into, by the identity of the request."""
        rows = await find(
            sql("find_started"),
            self._database.settings.namespace,
            [request.saga_id for request in requests],
            [request.name for request in requests],
            [request.key for request in requests],
        )
        answers = {}
        for row in rows:
            request = requests[row["n"] - 1]
            # The same id is the same request, sent again.
            same = row["id"] == request.saga_id or row["input"] == request.input
            answers[id(request)] = StartAnswer(row["id"], created=False, same_input=same)
        if len(answers) < len(requests):
            raise UnknownOutcomeError(
                "an instance with this key was there and is gone; start again"
            )
        return answers

    async def _look_up(self, statement: str, *args: object) -> Sequence[Record]:
        """The second statement, which finds the first committed."""
        try:
            return await self._database.fetch(statement, *args)
        except UnavailableError as error:
            raise UnknownOutcomeError(f"some starts may be stored: {error}") from error


def _columns(requests: Sequence[StartRequest]) -> list[object]:
    return [
        [request.saga_id for request in requests],
        [request.name for request in requests],
        [request.version for request in requests],
        [request.fingerprint for request in requests],
        [request.key for request in requests],
        [request.input for request in requests],
        [request.context for request in requests],
        [request.correlation_id for request in requests],
        [json.dumps(dict(request.tags)) if request.tags else "{}" for request in requests],
        [request.parent for request in requests],
        [request.parent_node for request in requests],
        len(requests),
    ]

"""Starts: one row for each new instance and one for its input."""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestrator.adapters.postgres.pool import Database
from orchestrator.adapters.postgres.statements import sql
from orchestrator.errors import UnavailableError, UnknownOutcomeError
from orchestrator.ports import StartAnswer, StartRequest


class PostgresRequests:
    """orchestrator.ports.Requests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, batch: Sequence[StartRequest]) -> list[StartAnswer]:
        """As the port says. A request that was stored before is known by its id too."""
        if not batch:
            return []
        once: dict[str, StartRequest] = {}
        for request in batch:
            once.setdefault(request.saga_id, request)
        ordered = sorted(once.values(), key=lambda request: (request.name, request.key or ""))
        rows = await self._database.commit(
            sql("start_sagas"),
            self._database.settings.namespace,
            [request.saga_id for request in ordered],
            [request.name for request in ordered],
            [request.version for request in ordered],
            [request.fingerprint for request in ordered],
            [request.key for request in ordered],
            [request.input for request in ordered],
            [request.context for request in ordered],
            [request.correlation_id for request in ordered],
            [json.dumps(dict(request.tags)) if request.tags else "{}" for request in ordered],
            len(ordered),
        )
        created = {row["id"] for row in rows}
        new = {id(request) for request in ordered if request.saga_id in created}
        known = [request for request in batch if id(request) not in new]
        answers = await self._known(known) if known else {}
        return [
            answers[id(request)]
            if id(request) in answers
            else StartAnswer(request.saga_id, created=True)
            for request in batch
        ]

    async def _known(self, requests: Sequence[StartRequest]) -> dict[int, StartAnswer]:
        """What requests ran into, by the identity of the request."""
        try:
            rows = await self._database.fetch(
                sql("find_started"),
                self._database.settings.namespace,
                [request.saga_id for request in requests],
                [request.name for request in requests],
                [request.key for request in requests],
            )
        except UnavailableError as error:
            raise UnknownOutcomeError(f"some starts may be stored: {error}") from error
        answers = {}
        for row in rows:
            request = requests[row["n"] - 1]
            same = row["input"] == request.input
            answers[id(request)] = StartAnswer(row["id"], created=False, same_input=same)
        if len(answers) < len(requests):
            raise UnknownOutcomeError(
                "an instance with this key was there and is gone; start again"
            )
        return answers

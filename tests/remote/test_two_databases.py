"""Two databases on one broker: each hears the replies to its own sagas, also by a shared topic."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from orchestrator import Orchestrator, Saga, remote
from orchestrator.bootstrap import Catalogue, open_app
from orchestrator.settings import Settings
from tests.servers import migrate

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

charge = remote("payments.charge", input=int, output=str, topic="payments.commands", timeout=600)
saga = Saga("far", 1, charge.without_undo("a test"))


@asynccontextmanager
async def hearing(dsn: str, servers: str, tag: str, name: str) -> AsyncIterator[Orchestrator]:
    """The part of a relay that takes replies in."""
    settings = Settings(
        database_url=SecretStr(dsn),
        kafka_bootstrap_servers=servers,
        kafka_topic=f"events-{name}-{tag}",
        kafka_state_topic="",
        kafka_reply_topic=f"replies-{tag}",
    )
    stop = asyncio.Event()
    async with open_app(settings, Catalogue((saga,))) as app:
        task = asyncio.create_task(app.hear_replies(stop))
        try:
            yield app.orchestrator
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)


async def unread(orchestrator: Orchestrator, saga_id: str) -> int:
    return len(await orchestrator.store.inbox.read(saga_id, 0))


async def test_a_reply_to_a_saga_of_one_database_is_not_lost_to_the_other(
    dsn: str, empty_dsn: str, kafka: str
) -> None:
    migrate(empty_dsn)
    tag = uuid.uuid4().hex[:8]
    producer = Producer({"bootstrap.servers": kafka})

    def reply(saga_id: str) -> None:
        told = {"command_id": f"{saga_id}/far", "answer": "succeeded"}
        headers = [(name, text.encode()) for name, text in told.items()]
        producer.produce(f"replies-{tag}", b'"p-1"', saga_id.encode(), headers=headers)
        assert producer.flush(30) == 0

    async def comes(orchestrator: Orchestrator, saga_id: str) -> None:
        async with asyncio.timeout(40):
            while not await unread(orchestrator, saga_id):
                await asyncio.sleep(0.05)

    async with hearing(empty_dsn, kafka, tag, "other") as other:
        theirs = await other.start(saga, 5)
        async with hearing(dsn, kafka, tag, "mine") as mine:
            ours = [await mine.start(saga, 5) for _ in range(20)]
            for handle in ours:
                reply(handle.saga_id)
            reply(theirs.saga_id)
            for handle in ours:
                await comes(mine, handle.saga_id)
            await comes(other, theirs.saga_id)

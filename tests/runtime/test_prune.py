"""From `saga prune` to the topics: what was removed is told there, and its state is a tombstone."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime

import pytest

from orchestrator import Saga, Status, WorkflowContext, step
from orchestrator.adapters.kafka import KafkaPublisher, KafkaSettings, open_publisher
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.bootstrap import prune
from orchestrator.domain.shards import Shard
from orchestrator.messaging import Event, EventConsumer, create_tables
from orchestrator.runtime.relay import Relay
from tests.crash.field_hospital import until
from tests.kafka_reader import Read, read_topic
from tests.runtime.stage import Stage


@step
async def small(value: int, ctx: WorkflowContext) -> str:
    return "done"


saga = Saga("narrow", version=3, body=small)


async def relayed(on_stage: Stage, settings: KafkaSettings) -> None:
    """Let a relay publish everything there is."""
    store = on_stage.app.store
    stop = asyncio.Event()

    async def opened(shard: Shard) -> KafkaPublisher:
        return await open_publisher(settings)

    relay = Relay(store.feed, store.hints, opened, SilentTelemetry())
    task = asyncio.create_task(relay.run(stop))

    async def all_of_it() -> bool:
        return await on_stage.side.fetchval(
            "SELECT coalesce(min(position), 0) >= (SELECT coalesce(max(position), 0) FROM event) "
            "FROM relay_cursor"
        )

    await until(all_of_it, "the relay has published all of it")
    stop.set()
    await task


async def handled(dsn: str, settings: KafkaSettings, saga_id: str) -> list[int]:
    """The versions of a saga that a downstream service handles, until it hears of the removal."""
    await create_tables(dsn)
    topic = settings.topic_of("narrow")
    consumer = EventConsumer(settings.bootstrap_servers, group=topic, topic=topic, database=dsn)
    seen: list[int] = []
    stop = asyncio.Event()

    @consumer.on(saga="narrow")
    async def note(event: Event) -> None:
        if event.saga_id == saga_id:
            seen.append(event.version)
        if event.type == "SagaRemoved":
            stop.set()

    await asyncio.wait_for(consumer.run(stop), 30)
    assert consumer.stopped == {}
    return seen


def values(records: list[Read], key: str) -> list[object]:
    return [None if r.value is None else json.loads(r.value) for r in records if r.key == key]


@pytest.mark.kafka
async def test_readers_hear_of_a_removal_and_the_state_becomes_a_tombstone(
    kafka: str, on_stage: Stage
) -> None:
    name = uuid.uuid4()
    topic = f"test-{name}.{{saga}}"
    settings = KafkaSettings(kafka, topic, state_topic=f"test-{name}-state")
    database = on_stage.app.settings
    async with on_stage.worker(saga):
        gone = await on_stage.start(saga)
        await on_stage.stands(gone, Status.COMPLETED)
        stays = await on_stage.start(saga)
        before = datetime.fromtimestamp((uuid.UUID(stays.saga_id).int >> 80) / 1000, UTC)
        await on_stage.stands(stays, Status.COMPLETED)
    await relayed(on_stage, settings)

    done = await prune(database, before, None)
    await relayed(on_stage, settings)

    assert (done.sagas, done.events) == (1, 3)
    assert await on_stage.app.store.reads.get(gone.saga_id) is None
    assert await stays.status() is Status.COMPLETED
    events = read_topic(kafka, settings.topic_of("narrow"))
    last = [r for r in events if r.key == gone.saga_id][-1]
    assert (last.version, last.header["ce_type"]) == (4, "saga.SagaRemoved")
    assert json.loads(last.value)["data"] == {"saga": "narrow", "saga_version": 3}
    states = read_topic(kafka, settings.state_topic)
    assert [value is None for value in values(states, gone.saga_id)] == [False, False, True]
    assert [value is None for value in values(states, stays.saga_id)] == [False, False]

    assert await handled(on_stage.dsn, settings, gone.saga_id) == [1, 2, 3, 4]

    assert (await prune(database, before, None)).sagas == 0
    left = "SELECT count(*) FROM event WHERE saga_id = $1"
    assert await on_stage.side.fetchval(left, gone.saga_id) == 0

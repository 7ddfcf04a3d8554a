"""Starts share a commit, and nothing else."""

from __future__ import annotations

import asyncio

from orchestrator import (
    Handle,
    InvalidInputError,
    KeyConflictError,
    Orchestrator,
    Saga,
    Status,
    WorkflowContext,
    step,
)
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.ports import Store


@step
async def greet(name: str, ctx: WorkflowContext) -> str:
    return f"hello {name}"


saga = Saga("greeting", version=1, body=greet)


async def test_a_start_that_the_database_refuses_does_not_take_its_neighbours_down(
    store: Store,
) -> None:
    orchestrator = Orchestrator(store, JsonCodec(), SilentTelemetry(), (saga,))
    bad = [WorkflowContext(tags={"a": "\x00"}), WorkflowContext(correlation_id="\x00")]
    starts = [orchestrator.start(saga, str(n)) for n in range(20)]
    starts[3:3] = [orchestrator.start(saga, "bad", context=context) for context in bad]
    starts.append(orchestrator.start(saga, "worse", context=bad[0]))

    answers = await asyncio.gather(*starts, return_exceptions=True)
    await orchestrator.close()

    refused = [n for n, answer in enumerate(answers) if isinstance(answer, InvalidInputError)]
    assert refused == [3, 4, 22]
    for n, answer in enumerate(answers):
        if n not in refused:
            assert not isinstance(answer, BaseException), answer
            assert await answer.status() is Status.PENDING


async def test_of_a_hundred_starts_of_one_key_at_once_all_get_one_instance_or_a_conflict(
    store: Store, any_dsn: str
) -> None:
    async with open_store(any_dsn) as elsewhere:
        services = [
            Orchestrator(one, JsonCodec(), SilentTelemetry(), (saga,)) for one in (store, elsewhere)
        ]
        answers = await asyncio.gather(
            *(services[n % 2].start(saga, "ann" if n % 3 else "bob", key="k") for n in range(100)),
            return_exceptions=True,
        )
        for service in services:
            await service.close()

    started = {n: answer.saga_id for n, answer in enumerate(answers) if isinstance(answer, Handle)}
    conflicts = {n for n, answer in enumerate(answers) if isinstance(answer, KeyConflictError)}
    [saga_id] = set(started.values())
    assert started.keys() | conflicts == set(range(100))
    assert sum((await store.reads.counts()).values()) == 1
    winner = "ann" if await store.reads.input(saga_id) == '"ann"' else "bob"
    assert started.keys() == {n for n in range(100) if (n % 3 != 0) == (winner == "ann")}

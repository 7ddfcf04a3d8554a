"""Starts share a commit, and nothing else."""

from __future__ import annotations

import asyncio

from orchestrator import InvalidInputError, Orchestrator, Saga, Status, WorkflowContext, step
from orchestrator.adapters.codec import JsonCodec
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

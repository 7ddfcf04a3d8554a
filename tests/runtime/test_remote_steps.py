"""A remote step over a real database: it parks, a reply wakes it, and what comes twice changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import (
    Handle,
    Saga,
    SagaFailedError,
    Status,
    WorkflowContext,
    remote,
    step,
)
from orchestrator.domain.events import Json, RemoteRequested
from orchestrator.domain.exchange import RemoteReply
from orchestrator.ports import EVENT_DATA_LIMIT, Reply
from tests.crash.field_hospital import until
from tests.runtime.stage import Stage, types

charge = remote("payments.charge", input=int, output=str, topic="payments.commands", timeout=600)
refund = remote("payments.refund", input=str, output=type(None), topic="payments.commands")


@step
async def finish(payment: str, ctx: WorkflowContext) -> str:
    return f"done: {payment}"


saga = Saga("far", 1, charge.undo_with(refund, lambda done: done.output) >> finish)


asked = Saga(
    "asked", 1, charge.undo_with(refund, lambda done: done.key, on_doubt=lambda tried: tried.key)
)


async def requests(handle: Handle[Any]) -> list[str]:
    """What participants were asked so far."""
    events = [entry.event async for entry in handle.history()]
    return [event.intent for event in events if isinstance(event, RemoteRequested)]


async def test_it_leaves_memory_until_a_reply_comes_that_counts_once(on_stage: Stage) -> None:
    async with on_stage.worker(saga, park_after=0.0) as orchestrator:
        handle = await orchestrator.start(saga, 5)

        async def parked() -> bool:
            row = await orchestrator.get(handle.saga_id)
            return row.status is Status.WAITING and row.owner is None

        await until(parked, "it is parked")
        why = await orchestrator.why(handle.saga_id)
        assert "it waits for the participant's reply about payments.charge" in why.main.text
        reply = RemoteReply(
            f"{handle.saga_id}/far/0/0", "do", 1, "succeeded", Json('"p-1"'), None, "p"
        )
        stranger = replace(reply, command_id="not-an-id/far/0")
        assert await orchestrator.take_reply(stranger) is Reply.NOT_FOUND
        assert await orchestrator.take_reply(reply) is Reply.ACCEPTED
        assert await orchestrator.take_reply(reply) is Reply.DUPLICATE
        assert await handle.result(within=20) == "done: p-1"
        late = replace(reply, number=2, answer="failed")
        assert await orchestrator.take_reply(late) is Reply.TOO_LATE
        seen = await types(handle)
        assert (seen["RemoteRequested"], seen["RemoteReplied"], seen["StepSucceeded"]) == (1, 1, 2)


async def test_a_reply_with_half_a_character_does_not_spoil_the_history(on_stage: Stage) -> None:
    """JSON may hold it, and no text can: what is recorded has to be readable for ever."""
    async with on_stage.worker(asked, park_after=0.0) as orchestrator:
        handle = await orchestrator.start(asked, 5)
        await on_stage.has(handle, "RemoteRequested")
        place = f"{handle.saga_id}/asked/0"
        half = RemoteReply(place, "do", 1, "succeeded", Json('"\\ud83d"'), None, "p")
        assert await orchestrator.take_reply(half) is Reply.ACCEPTED
        await on_stage.has(handle, "StepInDoubt")


@pytest.mark.parametrize("answer", ["succeeded", "happened"])
async def test_a_reply_too_large_to_be_recorded_leaves_doubt_and_a_way_out(
    on_stage: Stage, answer: str
) -> None:
    """A service that is not ours may send what no event can hold."""
    async with on_stage.worker(asked, park_after=0.0) as orchestrator:
        handle = await orchestrator.start(asked, 5)

        async def sent(intent: str) -> bool:
            row = await orchestrator.get(handle.saga_id)
            return row.owner is None and (await requests(handle))[-1:] == [intent]

        huge = Json(json.dumps("x" * (EVENT_DATA_LIMIT + 1)))
        place = f"{handle.saga_id}/asked/0"
        intent = "do" if answer == "succeeded" else "probe"
        await until(lambda: sent("do"), "it is sent")
        if intent == "probe":
            doubt = RemoteReply(place, "do", 1, "in_doubt", None, None, "p")
            assert await orchestrator.take_reply(doubt) is Reply.ACCEPTED
            await until(lambda: sent("probe"), "it is asked")
        number = 1 if intent == "do" else 2
        reply = RemoteReply(place, intent, number, answer, huge, None, "p")
        assert await orchestrator.take_reply(reply) is Reply.ACCEPTED
        if intent == "do":
            await until(lambda: sent("probe"), "it is asked")
            unknown = RemoteReply(place, "probe", 2, "unknown", None, None, "p")
            assert await orchestrator.take_reply(unknown) is Reply.ACCEPTED
        await until(lambda: sent("undo"), "it is undone in doubt")
        undone = RemoteReply(f"{place}/undo", "undo", 3, "succeeded", huge, None, "p")
        assert await orchestrator.take_reply(undone) is Reply.ACCEPTED
        with pytest.raises(SagaFailedError, match="compensated"):
            await handle.result(within=20)
        seen = await types(handle)
        assert (seen["RemoteReplied"], seen["StepCompensated"]) == (3, 1)

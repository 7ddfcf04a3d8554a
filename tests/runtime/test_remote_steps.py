"""A remote step over a real database: it parks, a reply wakes it, and what comes twice changes nothing."""

from __future__ import annotations

from dataclasses import replace

from orchestrator import Saga, Status, WorkflowContext, remote, step
from orchestrator.domain.events import Json
from orchestrator.domain.exchange import RemoteReply
from orchestrator.ports import Reply
from tests.crash.field_hospital import until
from tests.runtime.stage import Stage, types

charge = remote("payments.charge", input=int, output=str, topic="payments.commands", timeout=600)
refund = remote("payments.refund", input=str, output=type(None), topic="payments.commands")


@step
async def finish(payment: str, ctx: WorkflowContext) -> str:
    return f"done: {payment}"


saga = Saga("far", 1, charge.undo_with(refund, lambda done: done.output) >> finish)


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

"""The sagas that are measured: three steps that do nothing, and two ways for them to end."""

from __future__ import annotations

from orchestrator import Completed, Permanent, Saga, WorkflowContext, step


@step
async def first(value: int, ctx: WorkflowContext) -> int:
    return value + 1


@first.compensation
async def undo_first(done: Completed[int, int], ctx: WorkflowContext) -> None:
    return None


@step
async def second(value: int, ctx: WorkflowContext) -> int:
    return value + 1


@second.compensation
async def undo_second(done: Completed[int, int], ctx: WorkflowContext) -> None:
    return None


@step
async def third(value: int, ctx: WorkflowContext) -> int:
    return value + 1


@step
async def refuse(value: int, ctx: WorkflowContext) -> int:
    raise Permanent("no")


three_steps = Saga("three-steps", version=1, body=first >> second >> third)
two_undone = Saga("two-undone", version=1, body=first >> second >> refuse)

SAGAS = (three_steps, two_undone)

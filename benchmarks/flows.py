"""The sagas that are measured: steps that do nothing, and two ways for them to end."""

from __future__ import annotations

from orchestrator import Completed, Permanent, Saga, WorkflowContext, each, step


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


@step
async def refuse_all(values: list[int], ctx: WorkflowContext) -> list[int]:
    raise Permanent("no")


each_in_turn = Saga("each-in-turn", version=1, body=each(first, concurrency=1))
each_by_fifty = Saga("each-by-fifty", version=1, body=each(first, concurrency=50))
each_undone = Saga("each-undone", version=1, body=each(first, concurrency=50) >> refuse_all)

"""Steps that keep a CPU busy: plain functions, run in processes of their own."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.domain.context import Surroundings, WorkflowContext
from orchestrator.domain.steps import Step


def _new_pool() -> ProcessPoolExecutor:
    # A process that is forked while threads run may inherit a lock that nobody will free.
    return ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))


@dataclass(slots=True, eq=False)
class _Pool:
    """Processes, and how many calls they have in hand."""

    processes: ProcessPoolExecutor = field(default_factory=_new_pool)
    calls: int = 0

    def retire(self) -> None:
        """Give it nothing more to do."""
        if self in _pools:
            _pools.remove(self)

    def end(self) -> None:
        """Kill what still runs: nobody waits for it, and it would keep this process from ending."""
        for process in list((vars(self.processes).get("_processes") or {}).values()):
            process.kill()
        self.processes.shutdown(wait=False)


_pools: list[_Pool] = []


async def run_in_process(step: Step[Any, Any], given: object, ctx: WorkflowContext) -> Any:
    """What the step's function gives. Raises ConnectionError when its process died on the way."""
    if not _pools:
        _pools.append(_Pool())
    pool, fn = _pools[0], step.action
    bare = replace(ctx, surroundings=Surroundings())
    pool.calls += 1
    try:
        call = pool.processes.submit(_run, fn.__module__, fn.__qualname__, given, bare)
        try:
            return await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            if not call.cancelled():
                # A process cannot be called away, and one that hangs must not be waited for.
                pool.retire()
            raise
    except BrokenProcessPool as error:
        pool.retire()
        raise ConnectionResetError(f"the process that ran {step.name} died: {error}") from error
    finally:
        pool.calls -= 1
        if pool not in _pools and not pool.calls:
            pool.end()


def _run(module: str, name: str, given: object, ctx: WorkflowContext) -> Any:
    """In the other process: find the function again by its name, and call it."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    # The decorator left a step where the function was defined.
    return (found.action if isinstance(found, Step) else found)(given, ctx)

"""Steps that keep a CPU busy: plain functions, run in processes of their own."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from orchestrator.domain.context import Surroundings, WorkflowContext
from orchestrator.domain.steps import Step

_pools: list[ProcessPoolExecutor] = []


async def run_in_process(step: Step[Any, Any], given: object, ctx: WorkflowContext) -> Any:
    """What the step's function gives. Raises ConnectionError when its process died on the way."""
    if not _pools:
        # A process that is forked while threads run may inherit a lock that nobody will free.
        _pools.append(ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")))
    pool = _pools[0]
    fn = step.action
    bare = replace(ctx, surroundings=Surroundings())
    try:
        return await asyncio.get_running_loop().run_in_executor(
            pool, _run, fn.__module__, fn.__qualname__, given, bare
        )
    except BrokenProcessPool as error:
        if pool in _pools:
            _pools.remove(pool)
        raise ConnectionResetError(f"the process that ran {step.name} died: {error}") from error


def _run(module: str, name: str, given: object, ctx: WorkflowContext) -> Any:
    """In the other process: find the function again by its name, and call it."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    # The decorator left a step where the function was defined.
    return (found.action if isinstance(found, Step) else found)(given, ctx)

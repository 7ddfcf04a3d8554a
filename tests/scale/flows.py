"""The sagas that are many: `saga worker --sagas tests.scale.flows`."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

from orchestrator import Saga, WorkflowContext, sleep, step

NAP = float(os.environ.get("SCALE_NAP", "4"))
"""Seconds; those that wait are all waiting by then."""


@step
async def echo(n: int, ctx: WorkflowContext) -> int:
    return n


@step
async def kill_the_worker(n: int, ctx: WorkflowContext) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return n


brief = Saga("brief", 1, echo)
napping = Saga("napping", 1, sleep(timedelta(seconds=NAP)) >> echo)
poison = Saga("poison", 1, kill_the_worker)
CALLS = 100
limited = Saga("limited", 1, echo.named("call").rate_limit("desk", CALLS, per=1))

SAGAS = (brief, napping, poison, limited)

"""A worker process whose step blocks the event loop: `python -m tests.crash.blocked_worker DSN`."""

from __future__ import annotations

import asyncio
import sys
import threading

from orchestrator import Saga, WorkerSettings, WorkflowContext, step
from orchestrator.bootstrap import work
from tests.crash.doomed_worker import die_with_parent

SHORT = WorkerSettings(
    ttl=2.0, renew_every=0.2, command_timeout=0.3, margin=0.3, watch_every=0.2, poll_every=0.05,
    watchdog=True,
)  # fmt: skip


def blocking(forever: bool) -> Saga[int, int]:
    """A saga whose step never lets go of the loop, or does at once."""

    @step(name="compute")
    async def compute(n: int, ctx: WorkflowContext) -> int:
        if forever:
            threading.Event().wait()
        return n

    return Saga("blocking", 1, compute)


async def main(dsn: str) -> None:
    async with work([blocking(forever=True)], database_url=dsn, settings=SHORT):
        await asyncio.Event().wait()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(main(sys.argv[1]))

"""The API process of a chaos run: starts, signals and cancels sagas, and records every call.

    python -m tests.chaos.load '{"dsn": ..., "ledger": ..., "folder": ..., "seed": ..., "rate": ...}'

What got no answer is asked again under the same key, as a careful client does it. SIGTERM: no new
sagas; it ends when everything that was begun has its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import (
    ConflictError,
    InvalidInputError,
    KeyConflictError,
    NotFoundError,
    Orchestrator,
    TooLateError,
    UnavailableError,
    connect,
)
from tests.chaos import flows
from tests.chaos.journal import Journal
from tests.chaos.ledger_client import Ledger
from tests.chaos.orders import Orders, Plan

REFUSALS = (ConflictError, InvalidInputError, KeyConflictError, NotFoundError, TooLateError)
SAGAS = {saga.name: saga for saga in flows.SAGAS}
AGAIN_FOR = 120.0


@dataclass(frozen=True)
class Job:
    """What the harness asks for."""

    dsn: str
    ledger: int
    folder: str
    seed: int
    rate: float
    poison_every: int
    poison_from: int


class Load:
    """All the clients of one run."""

    def __init__(self, job: Job, orchestrator: Orchestrator) -> None:
        self._job = job
        self._api = orchestrator
        self._ledger = Ledger(job.ledger)
        self._history = Journal(Path(job.folder) / "history.jsonl")
        self._orders = Orders(job.seed)
        self._pause = random.Random(f"pauses {job.seed}")
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Be as many clients as the rate says, until *stop*."""
        number = 0
        while not stop.is_set():
            self._send_in(self._orders.plan(number, time.time))
            if number % self._job.poison_every == self._job.poison_from:
                for plan in self._orders.poison(number, time.time):
                    self._send_in(plan)
            number += 1
            wait = self._pause.expovariate(self._job.rate)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait)
        if self._clients:
            await asyncio.wait(self._clients)
        self._history.write(op="done", sagas=number)

    def _send_in(self, plan: Plan) -> None:
        task = asyncio.create_task(self._be_client(plan))
        self._clients.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._clients.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._history.write(op="client", outcome="broken", error=repr(error))

    async def _be_client(self, plan: Plan) -> None:
        await self._ledger.script(plan.ref, plan.script)
        saga = SAGAS[plan.saga]
        known = {"ref": plan.ref, "saga": plan.saga, "ends": plan.ends, "poison": plan.poison}

        async def start(order: flows.Transfer) -> str:
            return (await self._api.start(saga, order, key=plan.ref)).saga_id

        if plan.twice:
            one, _ = await asyncio.gather(
                self._insist("start", lambda: start(plan.order), **known),
                self._insist("start", lambda: start(plan.order), **known),
            )
            other = flows.Transfer(plan.ref, "nobody", "nobody", 1)
            await self._insist("start other", lambda: start(other), ref=plan.ref)
        else:
            one = await self._insist("start", lambda: start(plan.order), **known)
        if one is None:
            return
        async with asyncio.TaskGroup() as group:
            if plan.verdict is not None:
                group.create_task(self._judge(plan, one))
            if plan.cancel_after is not None:
                group.create_task(self._cancel(plan, one))

    async def _judge(self, plan: Plan, saga_id: str) -> None:
        await asyncio.sleep(plan.verdict_after)
        key, verdict = f"verdict-{plan.ref}", flows.Verdict(bool(plan.verdict))

        async def send() -> bool:
            return await self._api.signal(saga_id, flows.said, verdict, dedupe_key=key)

        known = {"ref": plan.ref, "saga_id": saga_id, "dedupe": key}
        times = 2 if plan.twice else 1
        await asyncio.gather(*(self._insist("signal", send, **known) for _ in range(times)))

    async def _cancel(self, plan: Plan, saga_id: str) -> None:
        await asyncio.sleep(plan.cancel_after or 0.0)
        key = f"cancel-{plan.ref}"

        async def send() -> None:
            await self._api.cancel(saga_id, "changed my mind", dedupe_key=key)

        await self._insist("cancel", send, ref=plan.ref, saga_id=saga_id, dedupe=key)

    async def _insist(self, op: str, ask: Callable[[], Awaitable[Any]], **known: Any) -> Any:
        """Ask until there is an answer; None when it was a refusal, or never came."""
        give_up, wait = time.monotonic() + AGAIN_FOR, 0.1
        while True:
            told: dict[str, Any] = {"op": op, **known, "called": time.time()}
            answer, done = None, True
            try:
                answer = await ask()
                told |= {"outcome": "ok", "answer": answer}
            except UnavailableError as error:
                told |= {"outcome": "unknown", "error": type(error).__name__}
                done = time.monotonic() > give_up
            except REFUSALS as error:
                told |= {"outcome": "fail", "error": type(error).__name__, "why": str(error)}
            except Exception as error:  # noqa: BLE001 - what no client should ever see is recorded
                told |= {"outcome": "broken", "error": repr(error)}
            self._history.write(**told, took=time.time() - told["called"])
            if done:
                return answer
            await asyncio.sleep(wait)
            wait = min(wait * 2, 1.0)


async def main(text: str) -> None:
    job = Job(**json.loads(text))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with connect(flows.SAGAS, database_url=job.dsn) as orchestrator:
        await Load(job, orchestrator).run(stop)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

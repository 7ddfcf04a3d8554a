"""Those who start sagas, tell them things and help the stuck ones; every answer is remembered."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.domain.events import ENDED, Status
from orchestrator.domain.evolve import evolve
from orchestrator.domain.state import SagaState
from orchestrator.errors import UnavailableError
from orchestrator.ports import DUE, MessageKind, Reply, StartRequest
from tests.simulation.sagas import Case

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

TRIES = 12
"""How often an operator tries to help one stuck instance."""


@dataclass(eq=False)
class Client:
    """The world outside. `started` are acknowledged starts, `accepted` acknowledged messages."""

    world: World
    started: dict[str, str] = field(default_factory=dict)
    accepted: list[tuple[str, str, str]] = field(default_factory=list)
    done: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    _tries: Counter[str] = field(default_factory=Counter)
    _sent: int = 0

    async def main(self, process: Process, stop: asyncio.Event) -> None:
        self._process, self._store = process, process.store
        chance = self.world.chance
        work = [self._use(found) for found in self.world.cases.values()]
        tasks = [asyncio.ensure_future(each) for each in work]
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        self.done = True
        while not stop.is_set():
            await asyncio.sleep(chance.uniform(0.5, 1.0))
            if not self.world.faults.on:
                await self._help()

    async def _use(self, case: Case) -> None:
        """Start one, perhaps twice, and tell it a thing or two."""
        world, chance = self.world, self.world.chance
        await asyncio.sleep(chance.uniform(0, 1.5))
        saga = case.saga
        key = saga.name if chance.random() < 0.7 else None
        saga_id = await self._start(case, key)
        if key is not None and chance.random() < 0.2:
            again = await self._start(case, key)
            if again != saga_id:
                world.trouble.append(f"key {key} gave {saga_id} and then {again}")
        self.started[saga_id] = saga.name
        if case.waits:
            for _ in range(chance.randint(0, 2)):
                await asyncio.sleep(chance.uniform(0, 1.0))
                await self._tell(saga_id, MessageKind.SIGNAL, twice=chance.random() < 0.3)
        if chance.random() < 0.2:
            await asyncio.sleep(chance.uniform(0, 2.0))
            await self._tell(saga_id, MessageKind.CANCEL, twice=chance.random() < 0.3)
        if chance.random() < 0.03:
            await asyncio.sleep(chance.uniform(0, 2.0))
            await self._tell(saga_id, MessageKind.TERMINATE, twice=False)

    async def _start(self, case: Case, key: str | None) -> str:
        saga = case.saga
        saga_id = self.world.new_saga_id()

        async def start() -> str:
            # Who starts by a key makes a new id each time; without one the id is the request.
            request = StartRequest(
                saga_id if key is None else self.world.new_saga_id(), saga.name, saga.version,
                saga.fingerprint, key, '"begin"', "{}", saga_id,
            )  # fmt: skip
            [answer] = await self._store.requests.start([request])
            self._store.hints.poke(DUE)
            return answer.saga_id

        found: str = await self._again_and_again(start)
        return found

    async def _tell(self, saga_id: str, kind: MessageKind, *, twice: bool) -> Reply:
        self._sent += 1
        dedupe_key = f"{kind}-{self._sent}"
        payload: dict[str, Any] = {"reason": "because"}
        if kind is MessageKind.SIGNAL:
            payload = {"name": "go", "data": json.dumps(dedupe_key)}
        return await self._send(saga_id, kind, payload, dedupe_key, times=2 if twice else 1)

    async def _send(
        self, saga_id: str, kind: str, payload: dict[str, Any], dedupe_key: str, times: int = 1
    ) -> Reply:
        async def send() -> Reply:
            reply = await self._store.inbox.send(
                saga_id, kind, payload, actor="somebody", dedupe_key=dedupe_key
            )
            self._store.hints.poke(DUE)
            return reply

        reply = Reply.NOT_FOUND
        for _ in range(times):
            reply = await self._again_and_again(send)
        if reply in (Reply.ACCEPTED, Reply.DUPLICATE):
            self.accepted.append((saga_id, kind, dedupe_key))
        return reply

    async def _again_and_again(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """Until it is acknowledged: who does not know asks again with the same key."""
        while True:
            try:
                return await act()
            except UnavailableError:
                await asyncio.sleep(self.world.chance.uniform(0.05, 0.5))

    # ------------------------------------------------------------------ operators

    async def _help(self) -> None:
        """Give what is waited for, and tell stuck instances the truth."""
        rows = self.world.database.tables.sagas
        for saga_id, row in list(rows.items()):
            if row.status is Status.STUCK:
                await self._help_stuck(saga_id)
            elif row.status not in ENDED and self._tries[f"go {saga_id}"] < 40:
                self._tries[f"go {saga_id}"] += 1
                if any(event.type == "WaitStarted" for event in row.events):
                    await self._tell(saga_id, MessageKind.SIGNAL, twice=False)

    async def _help_stuck(self, saga_id: str) -> None:
        world = self.world
        self._tries[saga_id] += 1
        tries = self._tries[saga_id]
        state = fold(world, saga_id)
        stuck: Any = state.stuck
        reason = "" if stuck is None else stuck.reason
        if tries == 1:
            self.reasons[f"{reason[:60]}"] += 1
        if not reason:
            world.trouble.append(f"saga {saga_id} is stuck for no reason")
        if tries > TRIES:
            return
        payload: dict[str, Any] = {"reason": "helped"}
        kind = (MessageKind.RETRY, MessageKind.RESUME)[tries % 2]
        node = getattr(stuck, "node", "")
        if node and state.at(node).doubtful and not state.pivoted:
            kind = MessageKind.RESOLVE
            payload |= self._truth(saga_id, node)
        self._sent += 1
        await self._send(saga_id, kind, payload, f"help-{self._sent}")

    def _truth(self, saga_id: str, node: str) -> dict[str, Any]:
        """What the ledger says of a step in doubt; what has not happened will not any more."""
        ledger, key = self.world.ledger, f"{saga_id}/{node}"
        entry = ledger.entry(key, "", saga_id)
        if entry.state == "applied":
            output = json.dumps(f"{entry.step} of {saga_id[-2:]}/{node}")
            return {"step": node, "happened": True, "output": output}
        ledger.take_back(key, entry.step, saga_id)
        return {"step": node, "happened": False}


def fold(world: World, saga_id: str) -> SagaState:
    """The state that the log of one instance comes to."""
    state = SagaState(saga_id)
    for row in world.database.tables.sagas[saga_id].events:
        evolve(state, world.codec.decode_event(row))
    return state

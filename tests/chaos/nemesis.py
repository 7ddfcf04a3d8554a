"""What does harm, by a seed: the same seed plans the same faults at the same times.

Every fault says in the journal when it began and ended, whom it struck and how often it did.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tests.chaos.crew import Member
from tests.chaos.kafka import Broker
from tests.chaos.scene import Scene, until
from tests.chaos.schedule import KINDS, Stroke, schedule

Told = dict[str, Any]
WRITES = {
    "worker": "UPDATE saga s SET head",
    "relay": "UPDATE relay_cursor",
    "api": "INTO saga |INTO inbox",
}
"""The statements whose commits are worth losing."""


class Nemesis:
    """Plays a schedule on a scene."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._strokes: set[asyncio.Task[None]] = set()
        self._healing = asyncio.Event()
        self._postgres = asyncio.Lock()
        self._broker = asyncio.Lock()

    async def rage(self) -> None:
        """Play the schedule to its end; what lasts longer goes on meanwhile."""
        scene, began = self._scene, time.monotonic()
        broker = scene.broker.may_restart
        planned = schedule(scene.size, scene.seed, broker=broker)
        scene.nemesis.write(what="schedule", strokes=[vars(stroke) for stroke in planned])
        for stroke in planned:
            await asyncio.sleep(max(0.0, began + stroke.at - time.monotonic()))
            task = asyncio.create_task(self._strike(stroke), name=stroke.kind)
            self._strokes.add(task)
        await asyncio.sleep(max(0.0, began + scene.size.safety - time.monotonic()))

    async def heal(self) -> None:
        """End everything that is still on; raises what went wrong while doing harm."""
        self._healing.set()
        if self._strokes:
            await asyncio.wait(self._strokes, timeout=60)
        scene = self._scene
        for member in scene.crew.members:
            member.send(signal.SIGCONT)
        for wire in scene.wires.values():
            wire.heal()
        await scene.ledger.say({"do": "calm"})
        for task in self._strokes:
            assert task.done(), f"{task.get_name()} does not end"
            if error := task.exception():
                raise error

    async def _strike(self, stroke: Stroke) -> None:
        begun = time.time()
        told = await DEEDS[stroke.kind](self, stroke)
        if told is None:  # nobody was there to be struck: it is not counted as a fault
            self._scene.nemesis.write(what="skipped", kind=stroke.kind, begun=begun)
        else:
            self._scene.nemesis.write(
                what="fault", kind=stroke.kind, begun=begun, ended=time.time(), **told
            )

    async def _pause(self, seconds: float) -> None:
        """As long, but not into the healing."""
        try:
            await asyncio.wait_for(self._healing.wait(), seconds)
        except TimeoutError:
            return

    # ------------------------------------------------------------------ victims

    async def _victim(self, prefix: str, stroke: Stroke) -> Member | None:
        """Somebody at work whom no other fault has in hand; None when there is nobody in time."""
        members = self._scene.crew.find(prefix)
        ordered = [members[(stroke.victim + n) % len(members)] for n in range(len(members))]
        limit = time.monotonic() + 8
        while time.monotonic() < limit and not self._healing.is_set():
            for member in ordered:
                if not member.troubled and not member.leaving and member.ready:
                    return member
            await asyncio.sleep(0.1)
        return None

    async def _kill(self, stroke: Stroke, prefix: str) -> Told | None:
        member = await self._victim(prefix, stroke)
        if member is None:
            return None
        return {"who": member.name, "pid": member.pid, "fired": int(member.send(signal.SIGKILL))}

    async def _kill_all(self, stroke: Stroke) -> Told | None:
        workers = [one for one in self._scene.crew.find("worker") if one.alive]
        spared = [one for one in workers if one.leaving or one.troubled]
        killed = [one.name for one in workers if one not in spared and one.send(signal.SIGKILL)]
        return {"who": killed, "fired": int(len(killed) > 1)}

    async def _drain(self, stroke: Stroke, prefix: str) -> Told | None:
        scene, member = self._scene, await self._victim(prefix, stroke)
        if member is None:
            return None
        pid = member.pid
        held = await scene.takeovers.held(pid) if prefix == "worker" else []
        since = time.time()
        scene.takeovers.watch("drain", member.name, since, held)
        code = await scene.crew.dismiss(member, scene.size.drain + 5)
        told = {"who": member.name, "pid": pid, "code": code, "took": time.time() - since}
        await scene.ledger.say({"do": "dismiss", "pid": pid})
        await scene.crew.start(member)
        member.leaving = False
        return {**told, "fired": 1}

    def _publisher(self) -> Member | None:
        """The relay at work: one that stands by would not be missed."""
        ready = [one for one in self._scene.crew.find("relay") if one.ready and not one.troubled]
        return max(ready, key=lambda relay: relay.last_said("takes over"), default=None)

    # ------------------------------------------------------------------ stopped processes

    async def _stop_relay(self, stroke: Stroke) -> Told | None:
        relay = self._publisher()
        if relay is None:
            return None
        place = self._scene.crew.find("relay").index(relay)
        return await self._stop(replace(stroke, victim=place), "relay", "stop")

    async def _stop(self, stroke: Stroke, prefix: str, cause: str) -> Told | None:
        scene, member = self._scene, await self._victim(prefix, stroke)
        if member is None:
            return None
        member.troubled, pid = True, member.pid
        try:
            begun = time.time()
            if not member.send(signal.SIGSTOP):
                return {"who": member.name, "fired": 0}
            held = await scene.takeovers.held(pid) if prefix == "worker" else []
            cut = scene.wires[member.name].cut_now("heartbeat") if "cut" in cause else 0
            scene.takeovers.watch(cause, member.name, begun, held)
            await self._pause(stroke.seconds)
            if member.pid != pid or not member.send(signal.SIGCONT):
                return None  # the ledger has killed it for a call that it sent before
            told = {"who": member.name, "pid": pid, "held": len(held), "cut": cut}
            return {**told, "seconds": time.time() - begun, "fired": 1}
        finally:
            member.troubled = False

    async def _stop_late_writer(self, stroke: Stroke) -> Told | None:
        """An append arrives when its worker was taken over: no run may go without one."""
        member = await self._victim("worker", stroke)
        if member is None:
            return None
        wire, place = self._scene.wires[member.name], self._scene.crew.find("worker").index(member)
        held = wire.delay_commit(stroke.seconds, WRITES["worker"], times=1, must_fire=False)
        try:
            await asyncio.wait_for(held.first.wait(), 8)
            return await self._stop(replace(stroke, victim=place), "worker", "stop, presence cut")
        except TimeoutError:
            return None
        finally:
            held.heal()
            wire.faults.remove(held)

    # ------------------------------------------------------------------ the database

    async def _crash_postgres(self, stroke: Stroke) -> Told | None:
        scene = self._scene
        async with self._postgres:
            [before] = await scene.ask("SELECT last_value AS high FROM event_position")
            await asyncio.to_thread(scene.postgres.crash)
            await self._pause(stroke.seconds)
            await asyncio.to_thread(scene.postgres.start)
            accepting = time.time()
            scene.nemesis.write(what="postgres accepts", at_=accepting)

            async def writes() -> bool:
                [row] = await scene.ask(
                    "SELECT count(*) AS n FROM event WHERE position > $1 AND recorded_at > $2",
                    before["high"], datetime.fromtimestamp(accepting, UTC),
                )  # fmt: skip
                return bool(row["n"])

            await until(writes, 60, "the first commit after Postgres was back")
            up = [
                m.name for m in scene.crew.find("worker") if m.ready_since < accepting and m.ready
            ]
            scene.nemesis.write(
                what="first commit", seconds=round(time.time() - accepting, 2), clean=bool(up)
            )
            return {"fired": 1, "who": "postgres", "down": stroke.seconds}

    async def _terminate(self, stroke: Stroke) -> Told | None:
        async with self._postgres:
            rows = await self._scene.ask(
                "SELECT pg_terminate_backend(pid) AS done FROM pg_stat_activity"
                " WHERE application_name LIKE 'saga %' AND pid % 2 = $1", stroke.victim % 2,
            )  # fmt: skip
            return {"fired": len(rows), "who": "sessions"}

    # ------------------------------------------------------------------ wires

    async def _cut(self, stroke: Stroke, prefix: str) -> Told | None:
        member = await self._victim(prefix, stroke)
        if member is None:
            return None
        wire, pid = self._scene.wires[member.name], member.pid
        for _ in range(50):
            if cut := wire.cut_now():
                return {"who": member.name, "pid": pid, "fired": cut}
            await asyncio.sleep(0.1)
        return None

    async def _always(self, stroke: Stroke, prefix: str, deed: str) -> Told | None:
        member = await self._victim(prefix, stroke)
        if member is None:
            return None
        wire, pid = self._scene.wires[member.name], member.pid
        fault = wire.black_hole() if deed == "black_hole" else wire.delay(0.1)
        await self._pause(stroke.seconds)
        fault.heal()
        wire.faults.remove(fault)
        return {"who": member.name, "pid": pid, "fired": fault.fired, "seconds": stroke.seconds}

    async def _lose(self, stroke: Stroke, whose: str, *, after: bool) -> Told | None:
        """The answer to a commit, or the commit itself; both look the same to the client."""
        matching, name, pid = WRITES[whose], whose, 0
        if whose != "api":
            member = self._publisher() if whose == "relay" else await self._victim(whose, stroke)
            if member is None:
                return None
            name, pid = member.name, member.pid
        wire = self._scene.wires[name]
        plan = wire.cut_after_commit if after else wire.cut_before_commit
        fault = plan(matching, times=2, must_fire=False)
        try:
            # It waits for its occasion: somebody who has nothing to write cannot lose it.
            await asyncio.wait_for(fault.first.wait(), 20)
            await self._pause(stroke.seconds / 4)
        except TimeoutError:
            return None
        finally:
            fault.heal()
            wire.faults.remove(fault)
        return {"who": name, "pid": pid, "fired": fault.fired}

    # ------------------------------------------------------------------ the broker

    async def _end_broker(self, stroke: Stroke) -> Told | None:
        broker = self._scene.broker
        assert isinstance(broker, Broker)
        async with self._broker:
            kill = stroke.victim % 2 == 0
            await asyncio.to_thread(broker.end, kill=kill)
            await self._pause(stroke.seconds)
            broker.launch()
            await asyncio.to_thread(broker.await_answer)
            return {"fired": 1, "who": "broker", "killed": kill, "down": stroke.seconds}


DEEDS: dict[str, Callable[[Nemesis, Stroke], Awaitable[Told | None]]] = {
    "kill worker": partial(Nemesis._kill, prefix="worker"),
    "kill all workers": Nemesis._kill_all,
    "drain worker": partial(Nemesis._drain, prefix="worker"),
    "stop worker past its lease": partial(Nemesis._stop, prefix="worker", cause="stop"),
    # It sleeps while its session is ended: the others think it dead, it does not.
    "stop worker, cut its presence": partial(
        Nemesis._stop, prefix="worker", cause="stop, presence cut"
    ),
    "stop worker, hold its append": Nemesis._stop_late_writer,
    "kill relay": partial(Nemesis._kill, prefix="relay"),
    "drain relay": partial(Nemesis._drain, prefix="relay"),
    "stop relay past its lease": Nemesis._stop_relay,
    "crash postgres": Nemesis._crash_postgres,
    "terminate sessions": Nemesis._terminate,
    "cut wires of worker": partial(Nemesis._cut, prefix="worker"),
    "cut wires of relay": partial(Nemesis._cut, prefix="relay"),
    "black hole for worker": partial(Nemesis._always, prefix="worker", deed="black_hole"),
    "black hole for relay": partial(Nemesis._always, prefix="relay", deed="black_hole"),
    "slow wires of worker": partial(Nemesis._always, prefix="worker", deed="delay"),
    "lose commit after, worker": partial(Nemesis._lose, whose="worker", after=True),
    "lose commit before, worker": partial(Nemesis._lose, whose="worker", after=False),
    "lose commit after, api": partial(Nemesis._lose, whose="api", after=True),
    "lose commit before, api": partial(Nemesis._lose, whose="api", after=False),
    "lose commit after, relay": partial(Nemesis._lose, whose="relay", after=True),
    "end broker": Nemesis._end_broker,
}
assert set(DEEDS) == set(KINDS)

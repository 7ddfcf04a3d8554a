"""One seed: processes, faults and sagas, through a rough time, a healing, and a quiet end."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from typing import Any

from orchestrator.domain.events import ENDED
from orchestrator.domain.ids import child_id
from orchestrator.runtime import machine
from orchestrator.runtime.relay_settings import RelaySettings
from orchestrator.runtime.worker import Worker
from orchestrator.runtime.worker_settings import WorkerSettings
from tests.simulation.broker import Broker, open_publisher
from tests.simulation.client import Client
from tests.simulation.database import Database
from tests.simulation.faults import Faults
from tests.simulation.ledger import Account, Ledger
from tests.simulation.parts import Parts, Telemetry, codec, patched
from tests.simulation.process import Main, Process
from tests.simulation.sagas import NAMES, Case, case
from tests.simulation.store import SimHints
from tests.simulation.timeline import FIRST, SpinningError, Timeline
from tests.simulation.wire import COMMAND_TIMEOUT

ROUGH = 6.0
"""Seconds in which everything may go wrong."""
BOUND = 60.0
"""Seconds after the healing in which everything must have ended."""
PARTING = 15.0
LATEST = 7.0
TTL = 4.0


class World:
    """Everything that one seed is made of."""

    def __init__(self, seed: int, parts: Parts | None = None) -> None:
        parts = parts or Parts()
        self.seed = seed
        self.parts = parts
        self.timeline = Timeline(seed)
        self.chance: random.Random = self.timeline.random
        self.faults = Faults(self.chance, self.timeline.say)
        self.trouble: list[str] = []
        self.counts: Counter[str] = Counter()
        self.shared_away = self._of_seed("shared state away")
        self._askew = self._of_seed("clock askew")
        self.database = Database(self.timeline, self.faults, **parts.database)
        self.hints = SimHints(self.database)
        self.ledger = Ledger(self.timeline, self.faults)
        self.broker = Broker(self.timeline, self.faults)
        self.codec = codec()
        self.cases = self._choose()
        self.settings = WorkerSettings(
            slots=self.chance.choice((1, 2, 50)), ttl=TTL, renew_every=0.5,
            command_timeout=COMMAND_TIMEOUT, margin=0.5, poll_every=0.4, watch_every=0.5,
            announce_after=self.chance.choice((0.01, 0.2)), park_after=0.3, step_timeout=2.0,
            grace=2.0, claim_limit=self.chance.choice((3, 10)),
            abandoned_limit=self.chance.choice((1, 1_000)),
        )  # fmt: skip
        self.processes: list[Process] = []
        self._incarnations: Counter[str] = Counter()
        self._names = 0
        self._parting = False
        self.timeline.before_turn = self._before_turn
        self._by_loop: dict[Any, Process] = {}

    def _of_seed(self, kind: str) -> bool:
        if kind not in self.faults.kinds:
            return False
        self.faults.note(kind)
        return True

    def _choose(self) -> dict[str, Case]:
        names = self.chance.sample(NAMES, k=self.chance.randint(2, 4))
        if self.chance.random() < 0.5:
            names[0] = NAMES[self.chance.randrange(16)]
        return {name: case(name) for name in dict.fromkeys(names)}

    def skew(self) -> float:
        return self.chance.uniform(-0.05, 0.05) if self._askew else 0.0

    # ------------------------------------------------------------------ what runs

    def run(self) -> None:
        """Play it to its end. What went wrong is in `trouble`."""
        with patched([*self._machine(), *self.parts.patches]):
            try:
                self._play()
            except SpinningError as error:
                self.trouble.append(str(error))
        for process in self.processes:
            process.loop.bury()

    def _play(self) -> None:
        timeline = self.timeline
        for number in range(self.chance.randint(2, 3)):
            self._begin(f"worker{number}", self._work)
        for number in range(self.chance.randint(1, 2)):
            self._begin(f"relay{number}", self._relay)
        self.client = Client(self)
        self._adopt(Process(self, "client", self.client.main, mortal=False))
        timeline.run(FIRST + ROUGH, self._all_over)
        self._heal()
        if not timeline.run(timeline.now + BOUND, self._all_over):
            self.trouble.append(f"not all had ended {BOUND:g} s after the healing")
        self._part()
        # What is still on its way arrives: a held call, a batch that nobody waits for.
        timeline.run(timeline.now + LATEST, lambda: False)

    def _begin(self, name: str, main: Main) -> None:
        self._incarnations[name] += 1
        process = Process(self, f"{name}.{self._incarnations[name]}", main)
        process.task.add_done_callback(lambda _: self.timeline.after(0.3, self._exit, process))
        self._adopt(process)

    def _exit(self, process: Process) -> None:
        """A process has come to its end by itself; whoever looks after it starts it again."""
        if self._parting or process.dead:
            return
        self._look_at_end(process)
        process.loop.die()
        self._restart(process)

    def _adopt(self, process: Process) -> None:
        self.processes.append(process)
        self._by_loop[process.loop] = process

    async def _work(self, process: Process, stop: asyncio.Event) -> None:
        worker = Worker(
            process.store,
            self.codec,
            Telemetry(self.counts),
            [saga for case_ in self.cases.values() for saga in (case_.saga, *case_.children)],
            {Account: Account(self.ledger, process)},
            self.settings,
            process.name,
        )
        await worker.run(stop)

    async def _relay(self, process: Process, stop: asyncio.Event) -> None:
        settings = RelaySettings(
            page=self.chance.choice((3, 10, 500)), ttl=4.0, publish_timeout=1.0, close_timeout=0.5,
            poll_every=0.1, idle_poll_every=0.8, backoff=0.1, backoff_limit=1.0,
        )  # fmt: skip
        relay = self.parts.relay(
            process.store.feed,
            process.store.hints,
            lambda: open_publisher(self.broker, process),
            Telemetry(self.counts),
            settings,
        )
        await relay.run(stop)

    # ------------------------------------------------------------------ what befalls it

    def _before_turn(self, loop: Any) -> None:
        kind = self.faults.at_turn(self.timeline.turns)
        if kind is None:
            return
        process = self._by_loop[loop]
        if process.mortal and not process.busy:
            self.strike(process, kind, "between two turns")

    def strike(self, process: Process, kind: str, where: str) -> None:
        """Let *kind* befall *process*."""
        after, chance = self.timeline.after, self.chance
        fleet: Any = process.store.fleet
        if kind in ("presence lost", "renewals lost") and not fleet.joined:
            return
        self.faults.note(kind, f"{process.name} at {where}")
        match kind:
            case "crash" | "crash unseen":
                process.loop.die()
                self.database.forget(process.wire)
                if kind == "crash":
                    fleet.fake.cut()
                after(chance.choice((0.01, 0.5, 3.0)), self._restart, process)
            case "told to end":
                process.end()
            case "freeze":
                process.loop.frozen = True
                after(chance.choice((0.1, 1.0, 5.0, 6.0)), self._thaw, process)
            case "cut" | "cut one way":
                process.cut = "both" if kind == "cut" else "answers"
                after(chance.choice((0.1, 1.0, 5.0, 6.0)), self._mend, process)
            case "renewals lost":
                process.renewals_lost = True
                after(chance.choice((1.0, 6.0)), self._mend, process)
            case "presence lost":
                process.presence_lost = True
                fleet.fake.cut()

    def _restart(self, process: Process) -> None:
        name = process.name.partition(".")[0]
        if process.dead and process is self._latest(name):
            self._begin(name, self._work if name.startswith("worker") else self._relay)

    def _latest(self, name: str) -> Process:
        return [p for p in self.processes if p.name.partition(".")[0] == name][-1]

    def _thaw(self, process: Process) -> None:
        if process.loop.frozen:
            process.thawed_at = self.timeline.now
            process.loop.frozen = False

    def _mend(self, process: Process) -> None:
        process.cut = ""
        process.renewals_lost = False

    def _heal(self) -> None:
        self.timeline.say("-- healed")
        self.faults.heal()
        self.database.heal()
        for process in list(self.processes):
            self._thaw(process)
            self._mend(process)
            self._restart(process)

    # ------------------------------------------------------------------ the end

    def _all_over(self) -> bool:
        tables = self.database.tables
        if not self.client.done or any(row.status not in ENDED for row in tables.sagas.values()):
            return False
        published = self.broker.positions
        return all(event.row.position in published for event in tables.log)

    def _part(self) -> None:
        """End every process as SIGTERM does; nothing of it may be left."""
        self.timeline.say("-- told to end")
        self._parting = True
        living = [process for process in self.processes if not process.dead]
        for process in living:
            process.end()
        over = lambda: all(process.task.done() for process in living)  # noqa: E731 - one use
        if not self.timeline.run(self.timeline.now + PARTING, over):
            late = [process.name for process in living if not process.task.done()]
            self.trouble.append(f"{late} had not ended {PARTING:g} s after they were told to")
        for process in living:
            self._look_at_end(process)
            tasks = asyncio.all_tasks(process.loop) - self.ledger.deaf
            left = sorted(task.get_name() for task in tasks)
            if left:
                self.trouble.append(f"{process.name} left tasks behind: {left}")

    def _look_at_end(self, process: Process) -> None:
        task = process.task
        if task.done() and not task.cancelled() and (error := task.exception()):
            self.trouble.append(f"{process.name} died of {error!r}")

    # ------------------------------------------------------------------ what is told

    def new_name(self) -> str:
        self._names += 1
        return f"00000000-0000-4000-8000-{self._names:012d}"

    def new_saga_id(self) -> str:
        self._names += 1
        return child_id(f"saga {self._names}", self.timeline.date())

    def _machine(self) -> list[tuple[Any, str, Any]]:
        """The world's time and chance, for what the runtime takes from this machine."""
        chance = self.chance
        return [
            (machine, "monotonic", lambda: self.timeline.now),
            (machine, "jittered", lambda seconds: seconds * chance.uniform(0.5, 1.0)),
            (machine, "shuffle", chance.shuffle),
            (machine, "new_name", self.new_name),
            (machine, "new_id", self.new_saga_id),
        ]

    def digest(self) -> str:
        """The same for the same seed."""
        text = "\n".join([*self.timeline.trace, str(self.timeline.turns), *self.trouble])
        return hashlib.sha256(text.encode()).hexdigest()

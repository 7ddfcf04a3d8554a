"""The processes of a run: started, watched, started again when they die; each with its log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.brokers import _die_with_parent
from tests.chaos.journal import Journal

ROOT = Path(__file__).parents[2]
LOOK_EVERY = 0.05
SAYS = {"worker": ") works", "relay": "publishes postgresql"}
EXIT_BLOCKED = 70
"""A worker ends itself with this when its loop was blocked past its lease."""


@dataclass(eq=False)
class Member:
    """One place in the crew, whoever fills it at the moment."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    says: str
    """What it says once it works."""
    begins_at: int = 0
    ready_pid: int = 0
    ready_since: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    leaving: bool = False
    """It was told to go: somebody waits for that and starts the next one."""
    troubled: bool = False
    """A fault is at work on it."""
    starts: int = 0

    def spawn(self) -> None:
        """Start its process; it dies with ours."""
        with self.log.open("ab") as out:
            self.begins_at = out.tell()
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def ready(self) -> bool:
        """Whether it has said that it works."""
        if not self.alive:
            return False
        if self.ready_pid == self.pid:
            return True
        with self.log.open("rb") as file:
            file.seek(self.begins_at)
            if self.says.encode() in file.read():
                self.ready_pid, self.ready_since = self.pid, time.time()
        return self.ready_pid == self.pid

    def last_said(self, words: str) -> str:
        """The time of its last line with these words, as its log spells it."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return max((line[10:42] for line in lines if words in line), default="")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, sign: signal.Signals) -> bool:
        """Whether it was there to be signalled."""
        if not self.alive:
            return False
        self.process.send_signal(sign)  # type: ignore[union-attr]  # alive
        return True

    @property
    def rss_mb(self) -> float:
        """Memory that it really uses."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        return 0.0


OnStart = Callable[[Member], Awaitable[None]]
OnDeath = Callable[[Member, int, float], Awaitable[None]]


@dataclass
class Crew:
    """Workers and relays."""

    folder: Path
    nemesis: Journal
    on_start: OnStart
    on_death: OnDeath
    members: list[Member] = field(default_factory=list)
    closed: bool = False

    def find(self, prefix: str) -> list[Member]:
        """Members by the beginning of their names."""
        return [member for member in self.members if member.name.startswith(prefix)]

    async def hire(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Fill a new place."""
        log, says = self.folder / f"{name}.log", SAYS[name.rstrip("0123456789")]
        line = [sys.executable, "-m", "orchestrator", *command]
        member = Member(name, line, environment, log, says)
        self.members.append(member)
        await self.start(member)

    async def start(self, member: Member) -> None:
        """Fill a place that is empty."""
        if self.closed:
            return
        member.spawn()
        member.starts += 1
        self.nemesis.write(what="started", who=member.name, pid=member.pid)
        await self.on_start(member)

    async def watch(self) -> None:
        """Whoever dies is replaced, whatever it died of; what it died of is written down."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for member in self.members:
                if member.leaving or member.process is None:
                    continue
                code = member.process.poll()
                if code is None:
                    continue
                self.note_death(member, code)
                await self.on_death(member, member.pid, time.time())
                await self.start(member)

    def note_death(self, member: Member, code: int) -> None:
        """A process has ended by itself or by a signal."""
        usual = code in (0, EXIT_BLOCKED, -int(signal.SIGKILL))
        self.nemesis.write(what="died", who=member.name, pid=member.pid, code=code, usual=usual)

    async def dismiss(self, member: Member, within: float) -> int:
        """SIGTERM, and wait; the exit code, -9 when it did not go by itself."""
        member.leaving = True
        member.send(signal.SIGTERM)
        member.send(signal.SIGCONT)
        began = time.monotonic()
        while member.alive and time.monotonic() - began < within:
            await asyncio.sleep(0.02)
        assert member.process is not None
        if member.alive:
            member.process.kill()
        return member.process.wait()

    def close(self) -> None:
        """Nobody stays, whatever happened."""
        self.closed = True
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                member.process.kill()
                member.process.wait(10)

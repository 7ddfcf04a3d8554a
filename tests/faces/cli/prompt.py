"""The prompt: `saga` in this process where only the answer counts, in its own where the process does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

ROOT = Path(__file__).parents[3]
FLOWS = "tests.faces.flows"


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON object on stderr."""
        found: dict[str, Any] = json.loads(self.err)
        assert found["exit_code"] == self.code
        return found


Prompt = Callable[..., Said]


@dataclass
class Running:
    """A `saga` process, and the lines that it has said on stderr."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def until(self, text: str, within: float = 30) -> None:
        """Wait until a line holds *text*."""
        with self._news:
            found = self._news.wait_for(lambda: any(text in line for line in self.lines), within)
        assert found, f"no {text!r} in {self.lines}"

    def end(self, number: signal.Signals | None = signal.SIGTERM, within: float = 20) -> int:
        """Send a signal, if any; the exit code, once it has ended and all is read."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(within)
        self._reader.join(5)
        return code


def environment(**variables: str) -> dict[str, str]:
    """An environment without what the tester's own says of sagas."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_")}
    return {**kept, "SAGA_SAGAS": FLOWS, **variables}


def _hear_ctrl_c() -> None:
    """A shell lets what it starts in the background ignore it, and that is inherited."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def process(
    *arguments: object, cwd: Path = ROOT, stdout: int = subprocess.DEVNULL, **variables: str
) -> Iterator[Running]:
    """A `saga` process; killed with the block if it has not ended."""
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=cwd, env=environment(**variables), text=True,
        stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        preexec_fn=_hear_ctrl_c,
    ) as child:  # fmt: skip
        running = Running(child)
        try:
            yield running
        finally:
            if child.poll() is None:
                child.kill()
            running.end(None)


@contextmanager
def worker(dsn: str, *arguments: object, **variables: str) -> Iterator[Running]:
    """A worker process that has begun to work."""
    with process("worker", *arguments, SAGA_DATABASE_URL=dsn, **variables) as running:
        running.until("works on")
        yield running


def order(amount: int = 5, order_id: str = "a1") -> str:
    """The input of an order, as JSON."""
    return json.dumps({"order_id": order_id, "amount": amount})


def status_of(saga: Prompt, saga_id: str, wanted: str, within: float = 15) -> dict[str, Any]:
    """Look until the instance stands as *wanted*; what `show` says of it."""
    limit = time.monotonic() + within
    while True:
        found: dict[str, Any] = saga("show", saga_id, "--json").json
        if found["status"] == wanted:
            return found
        assert time.monotonic() < limit, found


async def execute(dsn: str, *statements: str) -> None:
    """Do to a database what no command does."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()

"""`saga` as a person runs it: a process of its own, with an environment of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "orchestrator")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as one JSON value."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Terminal:
    """A person in *cwd* with a database."""

    dsn: str = ""
    cwd: Path = ROOT
    sagas: str = "tests.faces.parcels"

    def environment(self) -> dict[str, str]:
        """Nothing of ours but what the command needs; it would write control characters raw."""
        found = {"HOME": str(self.cwd), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        found |= {
            "SAGA_SAGAS": self.sagas,
            "SAGA_GRACE": "0.2",
            "COLUMNS": "100",
            "LANG": "C.UTF-8",
        }
        return found | ({"SAGA_DATABASE_URL": self.dsn} if self.dsn else {})

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """The command, begun."""
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=self.cwd, env=self.environment(), text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def saga(self, *arguments: str, input: str = "") -> Done:
        """The command, run to its end."""
        return end(self.popen(*arguments), input)

    @contextmanager
    def staying(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The command for as long as the block lasts."""
        process = self.popen(*arguments)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def end(process: subprocess.Popen[str], input: str = "", within: float = 40) -> Done:
    """Wait until the process has ended; it is killed when it does not."""
    try:
        out, err = process.communicate(input, timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Done(process.returncode, out, err)


def read_until(process: subprocess.Popen[str], word: str, *, of: str, within: float = 20) -> str:
    """What `stdout` or `stderr` says, up to the first mention of *word*."""
    stream = getattr(process, of)
    said, until = "", time.monotonic() + within
    while word not in said:
        ready, _, _ = select.select([stream], [], [], max(until - time.monotonic(), 0))
        assert ready, f"{word!r} was not said within {within} s, only: {said!r}"
        chunk = os.read(stream.fileno(), 65536).decode()
        assert chunk, f"it ended without saying {word!r}, only: {said!r}"
        said += chunk
    return said


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> Done:
    """Send the signal and wait for the end."""
    process.send_signal(number)
    return end(process, within=10)

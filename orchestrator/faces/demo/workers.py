"""Worker processes that end with the demo, whatever ends the demo."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orchestrator
from orchestrator.bootstrap import App
from orchestrator.errors import UnavailableError

SLOTS = 8
"""Few, so that both workers always have a share of the orders, and the killed one leaves some."""

_GRACE = 10.0

_LEASH = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""What a child does before it becomes a worker: ask Linux to kill it when we die."""


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """One `saga worker` in a process of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """`kill -9`: no chance to say good-bye."""
        self.process.kill()
        self.process.wait()

    def complaint(self) -> str:
        """The end of what it wrote, for the case that it died by itself."""
        lines = self.log.read_text("utf-8", "replace").splitlines()[-12:]
        return "\n".join(lines) or "it wrote nothing"


class Workers:
    """The workers of a demo, lettered in the order in which they were hired."""

    def __init__(self, app: App, modules: str) -> None:
        self._environment = _environment(app)
        self._modules = modules
        self._hired = 0
        self.alive: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="saga-demo-")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.alive:
            worker.process.terminate()
        for worker in self.alive:
            try:
                worker.process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                worker.kill()
        self.alive.clear()
        self._directory.cleanup()

    def hire(self) -> WorkerProcess:
        """Start one more."""
        name = chr(ord("A") + self._hired)
        self._hired += 1
        log = Path(self._directory.name) / f"worker-{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _leashed("-m", "orchestrator", "worker", "--sagas", self._modules),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # An empty directory: whatever lies in the user's own must not be imported instead.
                cwd=self._directory.name,
                env=self._environment,
                start_new_session=True,
            )
        worker = WorkerProcess(name, process, log)
        self.alive.append(worker)
        return worker

    def kill(self, worker: WorkerProcess) -> None:
        """`kill -9` one of them."""
        self.alive.remove(worker)
        worker.kill()

    def check(self) -> None:
        """UnavailableError when one has ended by itself."""
        for worker in self.alive:
            if (code := worker.process.poll()) is not None:
                raise UnavailableError(
                    f"worker {worker.name} ended by itself with exit code {code}:\n"
                    f"{worker.complaint()}"
                )


def _environment(app: App) -> Mapping[str, str]:
    """Ours, the same database, and the same code wherever it was imported from."""
    path = str(Path(orchestrator.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "SAGA_DATABASE_URL": app.database.dsn,
        "SAGA_SLOTS": str(SLOTS),
        "PYTHONPATH": os.pathsep.join([path, known]) if known else path,
        "PYTHONUNBUFFERED": "1",
    }
    if app.settings.state_dir is not None:
        environment["SAGA_STATE_DIR"] = str(app.settings.state_dir.absolute())
    return environment


def _leashed(*command: str) -> list[str]:
    """Python with *command*, as a process that does not outlive this one where Linux can help."""
    if not sys.platform.startswith("linux"):
        return [sys.executable, *command]
    return [sys.executable, "-c", _LEASH, str(os.getpid()), *command]

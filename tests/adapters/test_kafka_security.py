"""TLS and SASL: against a real Apache Kafka, and what is refused before anything connects."""

from __future__ import annotations

import logging
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from orchestrator.adapters.kafka import KafkaSettings, check, open_publisher
from orchestrator.bootstrap import kafka_settings
from orchestrator.catalogue import Catalogue
from orchestrator.diagnosis import diagnose
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import Mark, Verdict
from orchestrator.settings import Settings
from tests.brokers import NoBrokerError
from tests.faces.cli.prompt import environment as variables_of
from tests.feed_events import feed_event
from tests.kafka_reader import read_topic
from tests.secure_broker import KEY_PASSWORD, PASSWORD, USER, SecureBroker, open_secure_broker

CANARIES = (PASSWORD, KEY_PASSWORD)


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureBroker]:
    try:
        with open_secure_broker() as broker:
            yield broker
    except NoBrokerError as reason:
        pytest.skip(f"there is no Apache Kafka: {reason}")


def environment(**given: object) -> Settings:
    return Settings(**{f"kafka_{name}": value for name, value in given.items()})  # type: ignore[arg-type]  # pydantic checks them


def kafka(**given: object) -> KafkaSettings:
    found = kafka_settings(environment(**given))
    assert found is not None
    return found


def sasl(broker: SecureBroker, **given: object) -> dict[str, object]:
    defaults: dict[str, object] = {
        "bootstrap_servers": broker.sasl,
        "topic": f"test-{uuid.uuid4()}",
        "state_topic": "",
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(broker.ca),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": USER,
        "sasl_password": PASSWORD,
    }
    return {**defaults, **given}


def tls(broker: SecureBroker, **given: object) -> dict[str, object]:
    defaults: dict[str, object] = {
        "bootstrap_servers": broker.tls,
        "topic": f"test-{uuid.uuid4()}",
        "state_topic": "",
        "security_protocol": "ssl",
        "ssl_cafile": str(broker.ca),
        "ssl_certfile": str(broker.certificate),
        "ssl_keyfile": str(broker.locked_key),
        "ssl_password": KEY_PASSWORD,
    }
    return {**defaults, **given}


async def publish(settings: KafkaSettings) -> None:
    publisher = await open_publisher(settings)
    try:
        await publisher.publish([feed_event("s1", 1), feed_event("s1", 2)], Mark(0, 0, 0))
    finally:
        await publisher.close()


# ---------------------------------------------------------------------------- who is let in


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "plain"])
async def test_events_are_published_over_tls_with_a_password(
    secure: SecureBroker, mechanism: str
) -> None:
    settings = kafka(**sasl(secure, sasl_mechanism=mechanism))
    await publish(settings)
    assert [r.version for r in read_topic(secure.plain, settings.topic)] == [1, 2]
    assert (await check(settings)).problems == ()


@pytest.mark.kafka
@pytest.mark.parametrize("key", ["locked_key", "key"])
async def test_events_are_published_with_a_certificate_of_our_own(
    secure: SecureBroker, key: str
) -> None:
    password = KEY_PASSWORD if key == "locked_key" else None
    settings = kafka(**tls(secure, ssl_keyfile=str(getattr(secure, key)), ssl_password=password))
    await publish(settings)
    assert [r.version for r in read_topic(secure.plain, settings.topic)] == [1, 2]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            lambda b: sasl(b, ssl_cafile=str(b.other_ca)),
            r"certificate of 127\.0\.0\.1:\d+ is not to be trusted.*SAGA_KAFKA_SSL_CAFILE",
        ),
        (
            lambda b: sasl(b, ssl_cafile=""),
            r"certificate of 127\.0\.0\.1:\d+ is not to be trusted.*SAGA_KAFKA_SSL_CAFILE",
        ),
        (
            lambda b: sasl(b, bootstrap_servers=b.sasl.replace("127.0.0.1", "localhost")),
            r"is not to be trusted.*'localhost'",
        ),
        (lambda b: sasl(b, sasl_password="wrong"), r"does not let us in.*SAGA_KAFKA_SASL"),
        (
            lambda b: sasl(b, sasl_password="wrong", sasl_mechanism="PLAIN"),
            r"does not let us in.*SAGA_KAFKA_SASL",
        ),
        (lambda b: sasl(b, sasl_username="nobody"), r"does not let us in.*SAGA_KAFKA_SASL"),
        (lambda b: sasl(b, sasl_mechanism="SCRAM-SHA-256"), r"does not support SCRAM-SHA-256"),
        (
            lambda b: tls(b, ssl_certfile="", ssl_keyfile="", ssl_password=None),
            r"SAGA_KAFKA_SSL_CERTFILE",
        ),
        (lambda b: sasl(b, bootstrap_servers=b.plain), r"(does|and does) it speak SASL_SSL"),
        (
            lambda b: {"bootstrap_servers": b.sasl},
            r"SAGA_KAFKA_SECURITY_PROTOCOL is PLAINTEXT",
        ),
    ],
    ids=[
        "wrong CA", "no CA", "wrong host", "wrong password", "wrong password, PLAIN",
        "unknown user", "mechanism that is off", "no certificate", "plaintext door", "no TLS",
    ],
)  # fmt: skip
async def test_who_is_not_let_in_is_told_why(
    secure: SecureBroker, given: Callable[[SecureBroker], dict[str, Any]], said: str
) -> None:
    settings = kafka(**given(secure))
    for attempt in (open_publisher, check):
        with pytest.raises(UnavailableError, match=said) as found:
            await attempt(settings)
        assert not any(canary in str(found.value) for canary in CANARIES)


@pytest.mark.kafka
async def test_doctor_says_how_it_connects_and_why_it_cannot(secure: SecureBroker) -> None:
    fine = await diagnose(environment(**sasl(secure)), Catalogue(()))
    wrong = await diagnose(environment(**sasl(secure, sasl_password="wrong")), Catalogue(()))
    bad = await diagnose(environment(**sasl(secure, sasl_mechanism="")), Catalogue(()))

    [broker] = [f for f in fine if f.subject == "broker"]
    assert broker.verdict is Verdict.FINE
    assert "over SASL_SSL" in broker.text
    assert ["does not let us in" in f.text for f in wrong if f.subject == "broker"] == [True]
    assert [f.verdict for f in bad if f.subject == "broker"] == [Verdict.FAILED]


# ---------------------------------------------------------------------------- secrets


@pytest.mark.kafka
async def test_no_secret_is_shown_anywhere(
    secure: SecureBroker, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (None, "aiokafka", "aiokafka.conn"):  # each may have been hushed before
        caplog.set_level(logging.DEBUG, logger=name)
    said: list[object] = []
    for given in (sasl(secure), sasl(secure, sasl_mechanism="PLAIN"), tls(secure)):
        settings = environment(**given)
        wired = kafka_settings(settings)
        assert wired is not None
        publisher = await open_publisher(wired)
        await publisher.publish([feed_event("s1", 1)], Mark(0, 0, 0))
        said += [settings, settings._security(), settings.model_dump_json(), wired, publisher]
        await publisher.close()
        said += await diagnose(settings, Catalogue(()))
    for given in (
        sasl(secure, sasl_username="nobody"),
        sasl(secure, ssl_cafile=str(secure.other_ca)),
        sasl(secure, sasl_mechanism=""),
        sasl(secure, sasl_mechanism="GSSAPI"),
        tls(secure, ssl_keyfile=str(secure.key), ssl_certfile=str(secure.ca)),
        sasl(secure, security_protocol="SSL"),
    ):
        with pytest.raises((InvalidInputError, UnavailableError)) as found:
            await check(kafka(**given))
        error: BaseException | None = found.value
        while error is not None:
            said += [error, repr(error)]
            error = error.__cause__

    told = "\n".join([*map(repr, said), *map(str, said), caplog.text])
    assert "SaslHandShakeRequest" in caplog.text, "aiokafka said nothing that could hold a secret"
    assert USER in told
    for canary in CANARIES:
        assert canary not in told


def test_the_command_line_shows_no_secret(unused_tcp_port: int, tmp_path: Path) -> None:
    variables = {
        "SAGA_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{unused_tcp_port}",
        "SAGA_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "SAGA_KAFKA_SASL_MECHANISM": "PLAIN",
        "SAGA_KAFKA_SASL_USERNAME": USER,
        "SAGA_KAFKA_SASL_PASSWORD": PASSWORD,
        "SAGA_DATABASE_URL": "postgresql://127.0.0.1:1/none",
    }
    bad = {"SAGA_KAFKA_SECURITY_PROTOCOL": "SSL"}
    for verb, change in (
        ("doctor", {}), ("doctor", bad), ("relay", bad), ("relay", {"SAGA_KAFKA_PARTITIONS": "x"}),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", verb],
            env=variables_of(**{**variables, **change}), cwd=tmp_path, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "SAGA_KAFKA" in done.stdout + done.stderr or not change
        assert PASSWORD not in done.stdout + done.stderr


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"security_protocol": "TLS"}, "use one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ({"ssl_cafile": "ca.pem"}, "SAGA_KAFKA_SSL_CAFILE has no effect.*=PLAINTEXT"),
        (
            {"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": "ca.pem"},
            "SAGA_KAFKA_SSL_CAFILE has no effect.*SASL_SSL",
        ),
        ({"sasl_password": "x"}, "SAGA_KAFKA_SASL_PASSWORD has no effect.*SASL_SSL"),
        (
            {"security_protocol": "SSL", "sasl_username": "x", "sasl_mechanism": "PLAIN"},
            "SAGA_KAFKA_SASL_MECHANISM, SAGA_KAFKA_SASL_USERNAME has no effect",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_username": "x"},
            "also needs SAGA_KAFKA_SASL_MECHANISM, SAGA_KAFKA_SASL_PASSWORD",
        ),
        (
            {
                "security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI",
                "sasl_username": "x", "sasl_password": "y",
            },
            "SAGA_KAFKA_SASL_MECHANISM is 'GSSAPI'; use one of PLAIN",
        ),
        ({"security_protocol": "SSL", "ssl_keyfile": "k"}, "KEYFILE needs SAGA_KAFKA_SSL_CERTFILE"),
        ({"security_protocol": "SSL", "ssl_password": "k"}, "PASSWORD needs SAGA_KAFKA_SSL_CERT"),
        (
            {"security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"},
            "SAGA_KAFKA_SSL_CAFILE /nowhere/ca.pem cannot be used: No such file",
        ),
        (
            {"security_protocol": "SSL", "ssl_certfile": "/nowhere/own.pem"},
            "our certificate in /nowhere/own.pem cannot be used: No such file",
        ),
        (
            {"security_protocol": "SSL", "sasl_password_file": "/nowhere/secret"},
            "SAGA_KAFKA_SASL_PASSWORD_FILE /nowhere/secret cannot be read: No such file",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        kafka(bootstrap_servers="127.0.0.1:9092", **given)


def test_settings_are_checked_also_before_a_broker_is_named() -> None:
    with pytest.raises(InvalidInputError, match="both set"):
        kafka_settings(environment(sasl_password="x", sasl_password_file="y"))


def test_a_key_that_is_locked_or_no_key_at_all_is_refused(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("relay.example")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    (tmp_path / "text.pem").write_text("no PEM")
    given = {"bootstrap_servers": "127.0.0.1:9092", "security_protocol": "SSL"}
    for field in ("ssl_certfile", "ssl_cafile"):
        with pytest.raises(InvalidInputError, match=r"text\.pem cannot be used: it is not valid"):
            kafka(**given, **{field: str(tmp_path / "text.pem")})
    assert "ssl_context" in kafka(**given, ssl_certfile=str(tmp_path / "both.pem")).security


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p4ss word \n")
    given = {
        "bootstrap_servers": "127.0.0.1:9092", "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN", "sasl_username": "relay", "sasl_password_file": str(file),
    }  # fmt: skip
    assert kafka(**given).security["sasl_plain_password"] == "p4ss word "
    file.write_text("\n")
    with pytest.raises(InvalidInputError, match="is empty"):
        kafka(**given)

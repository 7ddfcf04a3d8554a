"""TLS and SASL: what aiokafka is given, checked before anything connects."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.conn import AIOKafkaConnection  # type: ignore[import-untyped]  # ships no types
from aiokafka.errors import (  # type: ignore[import-untyped]  # ships no types
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from orchestrator.errors import InvalidInputError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """How to show who we are, and to know who answers. Secrets are never shown."""

    protocol: str = ""
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""
    key_password: str = field(default="", repr=False)
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)


def arguments(asked: KafkaSecurity) -> dict[str, Any]:
    """What every aiokafka client is given. InvalidInputError for what does not go together."""
    protocol = (asked.protocol or "PLAINTEXT").upper()
    if protocol not in PROTOCOLS:
        raise InvalidInputError(
            f"SAGA_KAFKA_SECURITY_PROTOCOL is {asked.protocol!r}; use one of {', '.join(PROTOCOLS)}"
        )
    given: dict[str, Any] = {"security_protocol": protocol}
    _refuse_idle(asked, protocol)
    if protocol.endswith("SSL"):
        given["ssl_context"] = _context(asked)
    if protocol.startswith("SASL"):
        given |= _sasl(asked, protocol)
        logging.getLogger("aiokafka.conn").addFilter(_holds_no_secret)
    return {} if protocol == "PLAINTEXT" else given


def _holds_no_secret(record: logging.LogRecord) -> bool:
    """Whether a line may be logged: at DEBUG aiokafka tells its requests, the password included."""
    told = record.args if isinstance(record.args, tuple) else ()
    return not any(type(part).__name__.startswith("SaslAuthenticate") for part in told)


def _refuse_idle(asked: KafkaSecurity, protocol: str) -> None:
    """A setting without effect is a mistake: people believe that they are protected."""
    tls = ("cafile", "certfile", "keyfile", "key_password")
    sasl = ("mechanism", "username", "password")
    unused = {
        "SSL or SASL_SSL": () if protocol.endswith("SSL") else tls,
        "SASL_SSL": () if protocol.startswith("SASL") else sasl,
    }
    for wanted, names in unused.items():
        if found := [_VARIABLES[name] for name in names if getattr(asked, name)]:
            raise InvalidInputError(
                f"{', '.join(found)} has no effect with SAGA_KAFKA_SECURITY_PROTOCOL={protocol}; "
                f"set that to {wanted}, or unset the other"
            )


def _sasl(asked: KafkaSecurity, protocol: str) -> dict[str, Any]:
    needed = ("mechanism", "username", "password")
    if missing := [_VARIABLES[name] for name in needed if not getattr(asked, name)]:
        raise InvalidInputError(
            f"SAGA_KAFKA_SECURITY_PROTOCOL={protocol} also needs {', '.join(missing)}"
        )
    mechanism = asked.mechanism.upper()
    if mechanism not in MECHANISMS:
        raise InvalidInputError(
            f"SAGA_KAFKA_SASL_MECHANISM is {asked.mechanism!r}; use one of {', '.join(MECHANISMS)}"
        )
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": asked.username,
        "sasl_plain_password": asked.password,
    }


def _context(asked: KafkaSecurity) -> ssl.SSLContext:
    """Certificates are checked, and so is the broker's name; there is no way to turn that off."""
    if asked.keyfile and not asked.certfile:
        raise InvalidInputError("SAGA_KAFKA_SSL_KEYFILE needs SAGA_KAFKA_SSL_CERTFILE as well")
    if asked.key_password and not asked.certfile:
        raise InvalidInputError("SAGA_KAFKA_SSL_PASSWORD needs SAGA_KAFKA_SSL_CERTFILE as well")
    try:
        context = ssl.create_default_context(cafile=asked.cafile or None)
    except OSError as error:
        raise InvalidInputError(
            f"SAGA_KAFKA_SSL_CAFILE {asked.cafile} cannot be used: {_told(error)}; "
            "it holds the certificates in PEM that sign the broker's"
        ) from error
    if asked.certfile:
        _load_own(context, asked)
    return context


def _load_own(context: ssl.SSLContext, asked: KafkaSecurity) -> None:
    files = " and ".join(filter(None, (asked.certfile, asked.keyfile)))
    try:
        # A function, also for no password: without one OpenSSL would ask at the terminal.
        context.load_cert_chain(asked.certfile, asked.keyfile or None, lambda: asked.key_password)
    except (OSError, ValueError) as error:
        # Not from the error: OpenSSL's text is all there is to tell, and it holds no secret.
        raise InvalidInputError(
            f"our certificate in {files} cannot be used: {_told(error)}; it needs a certificate "
            "and its key in PEM, and SAGA_KAFKA_SSL_PASSWORD when the key is encrypted"
        ) from None


def _told(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            f"it is not valid PEM, or the password is wrong ({error.reason or 'no reason given'})"
        )
    return getattr(error, "strerror", None) or type(error).__name__


async def explain(servers: str, security: Mapping[str, Any], limit: float) -> str:
    """Why no connection can be made, in words that help; empty when that is not the reason."""
    for server in servers.split(","):
        try:
            await _try(server.strip(), security, limit)
        except ssl.SSLCertVerificationError as error:
            return (
                f"the certificate of {server} is not to be trusted: {error.verify_message}; "
                "SAGA_KAFKA_SSL_CAFILE must hold the certificate that signed it"
            )
        except UnsupportedSaslMechanismError:
            mechanism = security["sasl_mechanism"]
            return f"{server} does not support {mechanism}; change SAGA_KAFKA_SASL_MECHANISM"
        except SaslAuthenticationFailed as error:
            told = str(error).partition(": ")[2] or "no reason given"
            return (
                f"{server} does not let us in: {told}; see SAGA_KAFKA_SASL_USERNAME, ..._PASSWORD"
            )
        except (ssl.SSLError, KafkaError, ConnectionError, TimeoutError) as error:
            if isinstance(error, ConnectionRefusedError):
                continue
            return _disagreement(server, security, error)
        except (OSError, ValueError):
            continue
    return ""


async def _try(server: str, security: Mapping[str, Any], limit: float) -> None:
    host, _, port = server.rpartition(":")
    connection = AIOKafkaConnection(
        host.strip("[]"), int(port), request_timeout_ms=int(limit * 1000), **security
    )
    try:
        async with asyncio.timeout(limit):
            await connection.connect()
    finally:
        # TLS says goodbye; whoever ends its loop right now would leave an open socket behind.
        if (closed := connection.close()) is not None:
            await asyncio.wait({closed}, timeout=0.5)


def _disagreement(server: str, security: Mapping[str, Any], error: BaseException) -> str:
    """The broker answers, and not as it should: mostly it speaks another protocol."""
    protocol = security.get("security_protocol", "PLAINTEXT")
    if isinstance(error, TimeoutError):
        return f"{server} does not answer; is it well, and does it speak {protocol}?"
    told = getattr(error, "reason", None) or str(error) or type(error).__name__
    hint = ""
    if "ssl_context" in security:
        hint = ", or does it want a certificate of ours (SAGA_KAFKA_SSL_CERTFILE)"
    return (
        f"{server} ends the conversation ({told}); SAGA_KAFKA_SECURITY_PROTOCOL is {protocol}: "
        f"does it speak {protocol}{hint}?"
    )


_VARIABLES = {
    "cafile": "SAGA_KAFKA_SSL_CAFILE",
    "certfile": "SAGA_KAFKA_SSL_CERTFILE",
    "keyfile": "SAGA_KAFKA_SSL_KEYFILE",
    "key_password": "SAGA_KAFKA_SSL_PASSWORD",
    "mechanism": "SAGA_KAFKA_SASL_MECHANISM",
    "username": "SAGA_KAFKA_SASL_USERNAME",
    "password": "SAGA_KAFKA_SASL_PASSWORD",
}

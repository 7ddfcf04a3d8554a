"""What the environment says of Kafka, each variable with the prefix `SAGA_`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.adapters.kafka import KafkaSecurity, KafkaSettings, arguments
from orchestrator.errors import InvalidInputError


class KafkaEnvironment(BaseSettings):
    """Where the events go, and how to be let in there."""

    model_config = SettingsConfigDict(env_prefix="SAGA_", extra="ignore")

    kafka_bootstrap_servers: str = ""
    kafka_topic: str = "saga.events"
    kafka_state_topic: str = "saga.state"
    kafka_reply_topic: str = "saga.replies"
    kafka_partitions: int = Field(default=6, ge=1, le=10_000)
    kafka_replication_factor: int = Field(default=3, ge=1, le=100)
    kafka_create_topics: bool = True
    kafka_group: str = "saga"
    kafka_dead_letters: str = "saga.dead-letters"
    kafka_session_timeout: float = Field(default=10.0, ge=1, le=300)
    kafka_security_protocol: str = ""
    kafka_ssl_cafile: str = ""
    kafka_ssl_certfile: str = ""
    kafka_ssl_keyfile: str = ""
    kafka_ssl_password: SecretStr | None = None
    kafka_ssl_password_file: Path | None = None
    kafka_sasl_mechanism: str = ""
    kafka_sasl_username: str = ""
    kafka_sasl_password: SecretStr | None = None
    kafka_sasl_password_file: Path | None = None

    def kafka(self) -> KafkaSettings | None:
        """How to reach the broker; None when none is configured.

        Raises InvalidInputError for settings that do not go together.
        """
        security = self._security()
        if not self.kafka_bootstrap_servers:
            return None
        return KafkaSettings(
            bootstrap_servers=self.kafka_bootstrap_servers,
            topic=self.kafka_topic,
            state_topic=self.kafka_state_topic,
            reply_topic=self.kafka_reply_topic,
            partitions=self.kafka_partitions,
            replication_factor=self.kafka_replication_factor,
            create_topic=self.kafka_create_topics,
            security=arguments(security),
        )

    def _security(self) -> KafkaSecurity:
        return KafkaSecurity(
            protocol=self.kafka_security_protocol,
            cafile=self.kafka_ssl_cafile,
            certfile=self.kafka_ssl_certfile,
            keyfile=self.kafka_ssl_keyfile,
            key_password=_secret(
                "SAGA_KAFKA_SSL_PASSWORD", self.kafka_ssl_password, self.kafka_ssl_password_file
            ),
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_sasl_username,
            password=_secret(
                "SAGA_KAFKA_SASL_PASSWORD", self.kafka_sasl_password, self.kafka_sasl_password_file
            ),
        )


def _secret(variable: str, value: SecretStr | None, file: Path | None) -> str:
    """A secret as given, or as its file holds it; a line's end is not part of it."""
    if file is None:
        return value.get_secret_value() if value is not None else ""
    if value is not None:
        raise InvalidInputError(f"{variable} and {variable}_FILE are both set; unset one of them")
    try:
        secret = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidInputError(f"{variable}_FILE {file} cannot be read: {why}") from None
    if not secret:
        raise InvalidInputError(f"{variable}_FILE {file} is empty; it holds the secret and no more")
    return secret

"""What the environment says, and what has to hold between the times that it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from orchestrator.adapters.postgres.pool import PostgresSettings
from orchestrator.domain.shards import MOST_SHARDS
from orchestrator.environment import KafkaEnvironment
from orchestrator.runtime.worker_settings import WorkerSettings

_DAY = 86_400.0

Seconds = Annotated[float, Field(ge=0.001, le=_DAY)]
"""A bound that Postgres counts in milliseconds, where zero would mean that there is none."""

Long = Annotated[float, Field(gt=0, le=3_650 * _DAY)]


class Settings(KafkaEnvironment):
    """What the environment says, each variable with the prefix `SAGA_`.

    Times that contradict each other are refused, before anything is touched.
    """

    database_url: SecretStr | None = None
    state_dir: Path | None = None
    redis_url: SecretStr | None = None
    sagas: str = "sagas"
    step_timeout: Long = 600.0
    slots: int = Field(default=500, ge=1)
    grace: float = Field(default=30.0, ge=0, le=_DAY)
    lease_ttl: Seconds = 30.0
    lease_margin: float = Field(default=5.0, ge=0, le=_DAY)
    renew_every: Seconds = 1.0
    command_timeout: Seconds = 5.0
    connect_timeout: Seconds = 5.0
    lock_timeout: Seconds = 2.0
    idle_in_transaction_timeout: Seconds = 10.0
    pool_size: int = Field(default=8, ge=1, le=1_000)
    transactions: int = Field(default=10, ge=1, le=1_000)
    pooler: Literal["auto", "none", "transaction"] = "auto"
    metrics_host: str = "127.0.0.1"
    kafka_transactions: bool = True
    relay_shards: int = Field(default=4, ge=1, le=MOST_SHARDS)

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        """A slow database may cost a worker its lease only when it is slower than it may be."""
        needed = self.renew_every + 4 * self.command_timeout + self.lease_margin
        if self.lease_ttl < needed:
            raise ValueError(
                f"SAGA_LEASE_TTL={self.lease_ttl:g} is too short: it must be at least "
                f"SAGA_RENEW_EVERY ({self.renew_every:g}) + 4 x SAGA_COMMAND_TIMEOUT "
                f"({self.command_timeout:g}) + SAGA_LEASE_MARGIN ({self.lease_margin:g}) = "
                f"{needed:g} seconds; raise it, or lower the others"
            )
        left = self.lease_ttl - self.lease_margin - self.renew_every
        if self.connect_timeout > left:
            raise ValueError(
                f"SAGA_CONNECT_TIMEOUT={self.connect_timeout:g} is too long: a renewal that has to "
                f"connect first must end within SAGA_LEASE_TTL ({self.lease_ttl:g}) - "
                f"SAGA_LEASE_MARGIN ({self.lease_margin:g}) - SAGA_RENEW_EVERY "
                f"({self.renew_every:g}) = {left:g} seconds; lower it, or raise SAGA_LEASE_TTL"
            )
        if self.lock_timeout > self.command_timeout:
            raise ValueError(
                f"SAGA_LOCK_TIMEOUT={self.lock_timeout:g} is longer than SAGA_COMMAND_TIMEOUT "
                f"({self.command_timeout:g}), which would end every wait for a lock first, and for "
                "a reason that is not the real one; lower it, or raise SAGA_COMMAND_TIMEOUT"
            )
        return self

    def worker(self, *, watchdog: bool = False) -> WorkerSettings:
        """The part that a worker goes by."""
        return WorkerSettings(
            slots=self.slots,
            ttl=self.lease_ttl,
            renew_every=self.renew_every,
            command_timeout=self.command_timeout,
            margin=self.lease_margin,
            step_timeout=self.step_timeout,
            grace=self.grace,
            watchdog=watchdog,
        )

    def postgres(self) -> PostgresSettings:
        """The part that everybody goes by who speaks to the database."""
        return PostgresSettings(
            pool_size=self.pool_size,
            connect_timeout=self.connect_timeout,
            command_timeout=self.command_timeout,
            lock_timeout=self.lock_timeout,
            idle_in_transaction_timeout=self.idle_in_transaction_timeout,
            transactions=self.transactions,
            pooler=self.pooler,
        )

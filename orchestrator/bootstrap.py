"""Settings turned into wired objects; the only module that knows both adapters and runtime."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
)
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from orchestrator.adapters import embedded
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.kafka import (
    ConsumerSettings,
    KafkaConsumer,
    KafkaDeadLetters,
    KafkaSettings,
    open_publisher,
    open_transactional,
)
from orchestrator.adapters.kafka.replies import ReplyIntake
from orchestrator.adapters.postgres import checkup, retention, schema
from orchestrator.adapters.postgres.store import open_store
from orchestrator.adapters.telemetry import SilentTelemetry, initialize_observability
from orchestrator.catalogue import Catalogue, Resources
from orchestrator.domain.saga import Saga
from orchestrator.domain.shards import Shard
from orchestrator.errors import (
    InvalidInputError,
)
from orchestrator.ports import (
    Intake,
    Publisher,
    Removable,
    Removed,
    Store,
    Telemetry,
)
from orchestrator.runtime.inbound import InboundIntake
from orchestrator.runtime.relay import Relay
from orchestrator.runtime.relay_position import Trust
from orchestrator.runtime.relay_settings import RelaySettings
from orchestrator.runtime.service import Orchestrator
from orchestrator.runtime.worker import Worker
from orchestrator.runtime.worker_settings import WorkerSettings
from orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Database:
    """Where the data is. `shown` has no password in it."""

    dsn: str
    shown: str
    embedded: bool


@dataclass(frozen=True, slots=True)
class App:
    """Everything wired for one process."""

    settings: Settings
    database: Database
    store: Store
    telemetry: Telemetry
    orchestrator: Orchestrator
    catalogue: Catalogue

    @asynccontextmanager
    async def worker(self, *, watchdog: bool = False) -> AsyncIterator[Worker]:
        """A worker for all sagas at hand, with its resources open."""
        async with AsyncExitStack() as stack:
            resources: dict[type, object] = {}
            for open_ in self.catalogue.resources:
                resources.update(await stack.enter_async_context(open_(self.database.dsn)))
            yield Worker(
                self.store,
                self.orchestrator.codec,
                self.telemetry,
                self.catalogue.sagas,
                resources,
                self.settings.worker(watchdog=watchdog),
            )

    @asynccontextmanager
    async def consumer(self, group: str | None = None) -> AsyncIterator[KafkaConsumer | None]:
        """A consumer of all declared topics; None when no broker or no topic is."""
        kafka = kafka_settings(self.settings)
        if kafka is None or not self.catalogue.inbound:
            yield None
            return
        intake = InboundIntake(self.orchestrator, self.catalogue.inbound)
        member = group or self.settings.kafka_group
        async with self._member(kafka, intake.topics, member, intake) as consumer:
            yield consumer

    @asynccontextmanager
    async def _member(
        self,
        kafka: KafkaSettings,
        topics: Sequence[str],
        group: str,
        intake: Intake,
        *,
        create_topics: bool = False,
    ) -> AsyncIterator[KafkaConsumer]:
        dead = KafkaDeadLetters(kafka, self.settings.kafka_dead_letters, group)
        options = ConsumerSettings(
            session_timeout=self.settings.kafka_session_timeout, create_topics=create_topics
        )
        try:
            yield KafkaConsumer(kafka, topics, group, intake, dead, self.telemetry, options)
        finally:
            await dead.close()

    def relay(self, trust: Trust = Trust.NEITHER) -> Relay | None:
        """A relay to the configured broker; None when none is configured."""
        kafka = kafka_settings(self.settings)
        if kafka is None:
            return None

        async def opened(shard: Shard) -> Publisher:
            if self.settings.kafka_transactions:
                return await open_transactional(kafka, shard)
            return await open_publisher(kafka)

        return Relay(
            self.store.feed,
            self.store.hints,
            opened,
            self.telemetry,
            RelaySettings(shards=self.settings.relay_shards),
            trust=trust,
            clock=self.store.clock,
        )

    async def hear_replies(self, stop: asyncio.Event) -> None:
        """Take what participants reply into the inboxes, until *stop* is set."""
        kafka = kafka_settings(self.settings)
        if kafka is None:
            return
        topic, intake = kafka.reply_topic, ReplyIntake(self.orchestrator.take_reply)
        # One group for each database, which the topic of its events stands for: all of them hear
        # every reply of a topic that they share, and drop what is for others.
        group = f"{kafka.relay_prefix}.replies"
        async with self._member(kafka, [topic], group, intake, create_topics=True) as consumer:
            await consumer.run(stop)


def kafka_settings(settings: Settings) -> KafkaSettings | None:
    """How to reach the broker; None when no broker is configured."""
    return settings.kafka()


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The configured database, or an embedded Postgres that is started when none runs."""
    if settings.database_url is not None:
        dsn = settings.database_url.get_secret_value()
        yield Database(_checked(dsn), redact(dsn), embedded=False)
        return
    state_dir = settings.state_dir or embedded.default_state_dir()
    server = embedded.connect_or_start(state_dir)
    try:
        yield Database(server.dsn(), f"embedded PostgreSQL in {state_dir}", embedded=True)
    finally:
        server.close()


@asynccontextmanager
async def open_app(
    settings: Settings | None = None,
    catalogue: Catalogue | None = None,
    *,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[App]:
    """Wire a process up. An embedded database is migrated by itself, a configured one is not."""
    settings = settings or Settings()
    catalogue = catalogue or Catalogue(())
    telemetry = telemetry or SilentTelemetry()
    async with open_database(settings) as database:
        if database.embedded:
            await migrate_if_needed(database.dsn)
        async with (
            open_store(database.dsn, settings=settings.postgres(), telemetry=telemetry) as opened,
            _with_caches(settings, opened) as store,
        ):
            orchestrator = Orchestrator(store, JsonCodec(), telemetry, catalogue.sagas)
            try:
                yield App(settings, database, store, telemetry, orchestrator, catalogue)
            finally:
                await orchestrator.close()


@asynccontextmanager
async def _with_caches(settings: Settings, store: Store) -> AsyncIterator[Store]:
    """*store*, its caches in the configured Redis, if there is one."""
    if settings.redis_url is None:
        yield store
        return
    url = settings.redis_url.get_secret_value()
    async with redis_caches().open_redis_cache(url, store.shared, store.clock) as shared:
        yield replace(store, shared=shared)


def redis_caches() -> Any:
    """Redis is an extra, imported only where it is configured."""
    try:
        from orchestrator.adapters import redis_cache
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "redis":
            raise
        raise InvalidInputError(
            "SAGA_REDIS_URL is set, but the package redis is not installed; "
            "run `pip install 'saga-orchestrator[redis]'`, or unset it"
        ) from error
    return redis_cache


@asynccontextmanager
async def connect(
    sagas: Sequence[Saga[Any, Any]] = (), *, database_url: str | None = None
) -> AsyncIterator[Orchestrator]:
    """An orchestrator to start sagas with and to ask about them.

    The database is *database_url*, else `SAGA_DATABASE_URL`, else an embedded Postgres.
    """
    async with open_app(_settings(database_url), Catalogue(tuple(sagas))) as app:
        yield app.orchestrator


@asynccontextmanager
async def work(
    sagas: Sequence[Saga[Any, Any]],
    resources: Resources | None = None,
    *,
    database_url: str | None = None,
    settings: WorkerSettings | None = None,
) -> AsyncIterator[Orchestrator]:
    """A worker for *sagas* in this process for as long as the block lasts, and its orchestrator."""
    async with open_app(_settings(database_url), Catalogue(tuple(sagas))) as app:
        worker = Worker(
            app.store,
            app.orchestrator.codec,
            app.telemetry,
            sagas,
            resources or {},
            settings or app.settings.worker(),
        )
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop), name="worker")
        try:
            yield app.orchestrator
        finally:
            stop.set()
            await task


def spare_the_collector() -> None:
    """Let Python's collector look through memory less often, in a process that is ours alone.

    Nearly all that a worker makes is freed as soon as nobody holds it. With the default
    thresholds a third of its CPU went into looks that found nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@contextmanager
def observe(metrics_port: int | None, metrics_host: str = "127.0.0.1") -> Iterator[Telemetry]:
    """Metrics on *metrics_port* and spans where OTEL_EXPORTER_OTLP_ENDPOINT says; or neither.

    What was not sent yet is sent when the block ends.
    """
    if metrics_port is None:
        yield SilentTelemetry()
        return
    with closing(
        initialize_observability(prometheus_port=metrics_port, prometheus_host=metrics_host)
    ) as telemetry:
        yield telemetry


async def migrate_database(settings: Settings, revision: str = "head") -> tuple[str, str | None]:
    """Bring the database to *revision*; where it is, and the revision it is at now."""
    async with open_database(settings) as database:
        await asyncio.to_thread(_migrate().upgrade, database.dsn, revision)
        return database.shown, await asyncio.to_thread(_migrate().current, database.dsn)


async def schema_of(settings: Settings) -> tuple[str | None, str]:
    """The revision that the database is at, and the one that this code wants."""
    async with open_database(settings) as database:
        return await asyncio.to_thread(_migrate().current, database.dsn), schema.head()


async def removable(settings: Settings, before: datetime, name: str | None) -> Removable:
    """What `prune` would remove. Changes nothing."""
    async with open_database(settings) as database:
        return await retention.look(database.dsn, before, name)


async def prune(
    settings: Settings,
    before: datetime,
    name: str | None,
    progress: Callable[[int], None] | None = None,
) -> Removed:
    """Remove what ended before *before*, of one saga where *name* is given."""
    async with open_database(settings) as database:
        return await retention.remove(database.dsn, before, name, progress)


async def migrate_if_needed(dsn: str) -> None:
    """An embedded database is ours alone: it is brought up to date without being asked."""
    if not await checkup.is_current(dsn):
        await asyncio.to_thread(_migrate().upgrade, dsn)


def _migrate() -> Any:
    """Alembic takes half a second to import, and most commands never need it."""
    from orchestrator.adapters.postgres import migrate

    return migrate


def redact(dsn: str) -> str:
    """*dsn* as it may be shown: no password, no parameters."""
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2] or "localhost"
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{hosts}{parts.path}"


def _settings(database_url: str | None) -> Settings:
    return Settings() if database_url is None else Settings(database_url=SecretStr(database_url))


def _checked(dsn: str) -> str:
    """*dsn* for asyncpg. Raises InvalidInputError when it is not one for Postgres."""
    scheme, colon, rest = dsn.partition("://")
    if not colon or scheme.split("+")[0] not in ("postgresql", "postgres") or not _has_ports(dsn):
        # Not a word of what was found there: a password may be in it.
        raise InvalidInputError(
            "SAGA_DATABASE_URL must look like postgresql://user:password@host:5432/database"
        )
    return f"postgresql://{rest}"


def _has_ports(dsn: str) -> bool:
    """Whether what stands where the ports do can be ports."""
    try:
        hosts = urlsplit(dsn).netloc.rpartition("@")[2].split(",")
        return all((urlsplit(f"//{host}").port or 0) >= 0 for host in hosts)
    except ValueError:
        return False

"""The one description of the schema: Alembic compares it with the migrations, reads build on it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    MetaData,
    Sequence,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB
from sqlalchemy.types import (
    BigInteger,
    Boolean,
    DateTime,
    Double,
    Integer,
    Interval,
    LargeBinary,
    Text,
    Uuid,
)

from orchestrator.domain.events import ENDED, Status

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMING)

_NOW = text("clock_timestamp()")


def _listed(statuses: Iterable[Status]) -> str:
    """Statuses as an SQL list, in the order of the enum."""
    chosen = set(statuses)
    return ", ".join(f"'{status}'" for status in Status if status in chosen)


AT_REST = ENDED | {Status.STUCK}
"""Where an instance has no owner and nothing is due."""

saga = Table(
    "saga",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("namespace", Text, nullable=False, server_default=text("'default'")),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("key", Text),
    Column("status", Text, nullable=False),
    Column("head", Integer, nullable=False, server_default=text("0")),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("owner", Uuid(as_uuid=False)),
    Column("claims", Integer, nullable=False, server_default=text("0")),
    Column("due_at", DateTime(timezone=True)),
    Column("inbox_seq", Integer, nullable=False, server_default=text("0")),
    Column("inbox_seen", Integer, nullable=False, server_default=text("0")),
    Column("correlation_id", Text, nullable=False),
    Column("context", JSON, nullable=False),
    Column("tags", JSONB, nullable=False, server_default=text("'{}'")),
    Column("parent", Uuid(as_uuid=False)),
    Column("parent_node", Text, nullable=False, server_default=text("''")),
    Column("pivoted", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint(f"status IN ({_listed(Status)})", name="status"),
    CheckConstraint(
        f"status NOT IN ({_listed(AT_REST)}) OR (owner IS NULL AND due_at IS NULL)",
        name="at_rest",
    ),
    CheckConstraint("head >= 0 AND epoch >= 0 AND claims >= 0", name="counts"),
    CheckConstraint("inbox_seen BETWEEN 0 AND inbox_seq", name="inbox"),
    CheckConstraint("jsonb_typeof(tags) = 'object'", name="tags"),
    # No index on a column that every append changes: head, status, updated_at stay HOT.
    Index(
        "uq_saga_key",
        "namespace",
        "name",
        "key",
        unique=True,
        postgresql_where=text("key IS NOT NULL"),
    ),
    Index(
        "ix_saga_due",
        "namespace",
        "name",
        "version",
        "due_at",
        postgresql_where=text("owner IS NULL AND due_at IS NOT NULL"),
    ),
    Index("ix_saga_owner", "owner", postgresql_where=text("owner IS NOT NULL")),
    Index("ix_saga_parent", "parent", "id", postgresql_where=text("parent IS NOT NULL")),
    Index(
        "ix_saga_tags",
        "tags",
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
        postgresql_where=text("tags <> '{}'::jsonb"),
    ),
    postgresql_with={"fillfactor": 70},
)

saga_input = Table(
    "saga_input",
    metadata,
    Column("saga_id", Uuid(as_uuid=False), primary_key=True),
    Column("input", JSON, nullable=False),
)

# One position at a time: positions that a session kept in a cache would slip past the feed's gate.
position = Sequence("event_position", metadata=metadata, data_type=BigInteger, cache=1)

event = Table(
    "event",
    metadata,
    Column("saga_id", Uuid(as_uuid=False), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column(
        "position",
        BigInteger,
        nullable=False,
        server_default=text("nextval('event_position'::regclass)"),
    ),
    Column("type", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("data", JSON, nullable=False),
    Column("meta", JSON, nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("version > 0 AND position > 0 AND attempt >= 0 AND epoch > 0", name="counts"),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    # Each partition has its own unique index on position; a global one cannot be had.
    postgresql_partition_by="RANGE (saga_id)",
)

inbox = Table(
    "inbox",
    metadata,
    Column(
        "saga_id", Uuid(as_uuid=False), ForeignKey("saga.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("seq", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("actor", Text, nullable=False),
    Column("dedupe_key", Text, nullable=False),
    Column("sent_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    UniqueConstraint("saga_id", "dedupe_key"),
    CheckConstraint("seq > 0", name="seq"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("label", Text, nullable=False),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    Column("presence_key", BigInteger),
    Column("joined_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("retired_at", DateTime(timezone=True)),
    Column("reason", Text),
    # Empty for workers whose code does not say it.
    Column("namespace", Text),
    Column("definitions", JSONB),
    CheckConstraint("(retired_at IS NULL) = (reason IS NULL)", name="retired"),
)

relay_cursor = Table(
    "relay_cursor",
    metadata,
    Column("relay", Text, primary_key=True),
    Column("position", BigInteger, nullable=False, server_default=text("0")),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("position >= 0 AND epoch > 0", name="counts"),
)

relay_member = Table(
    "relay_member",
    metadata,
    Column("relay", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("lease_until", DateTime(timezone=True), nullable=False),
)

circuit = Table(
    "circuit",
    metadata,
    Column("namespace", Text, primary_key=True, server_default=text("'default'")),
    Column("name", Text, primary_key=True),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column("passed", Integer, nullable=False, server_default=text("0")),
    Column("opened_at", DateTime(timezone=True)),
    # When the probes that have not reported were let through; in order.
    Column("probes", ARRAY(DateTime(timezone=True)), nullable=False, server_default=text("'{}'")),
    CheckConstraint("failed >= 0 AND passed >= 0", name="counts"),
    CheckConstraint("opened_at IS NOT NULL OR (passed = 0 AND probes = '{}')", name="closed"),
    postgresql_with={"fillfactor": 70},
)

rate = Table(
    "rate",
    metadata,
    Column("namespace", Text, primary_key=True, server_default=text("'default'")),
    Column("name", Text, primary_key=True),
    Column("full_at", DateTime(timezone=True), nullable=False),
    # When the last of those who wait has its turn, and by which rule turns were given.
    Column("line_at", DateTime(timezone=True)),
    Column("line_each", Interval),
    postgresql_with={"fillfactor": 70},
)

cache_entry = Table(
    "cache_entry",
    metadata,
    # Of namespace, name and key, which together may be longer than an index takes.
    Column("digest", LargeBinary, primary_key=True),
    Column("namespace", Text, nullable=False, server_default=text("'default'")),
    Column("name", Text, nullable=False),
    Column("output", JSON),
    Column("kept_at", DateTime(timezone=True)),
    Column("holder", Text),
    Column("held_since", DateTime(timezone=True)),
    Column("held_until", DateTime(timezone=True)),
    CheckConstraint("(output IS NULL) = (kept_at IS NULL)", name="kept"),
    CheckConstraint(
        "(holder IS NULL) = (held_since IS NULL) AND (holder IS NULL) = (held_until IS NULL)",
        name="held",
    ),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
    Index("ix_cache_entry_kept", "namespace", "name", "kept_at"),
)

budget = Table(
    "budget",
    metadata,
    Column("namespace", Text, primary_key=True, server_default=text("'default'")),
    Column("name", Text, primary_key=True),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("spent", Double, nullable=False),
    CheckConstraint("abs(spent) < 'Infinity'", name="spent"),
    postgresql_with={"fillfactor": 70},
)

budget_receipt = Table(
    "budget_receipt",
    metadata,
    Column("namespace", Text, primary_key=True, server_default=text("'default'")),
    Column("name", Text, primary_key=True),
    Column("receipt", Text, primary_key=True),
    Column("spent_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("ix_budget_receipt_spent_at", "namespace", "name", "spent_at"),
)

"""The log: instances, their inputs, and the append-only table of events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATUSES = (
    "'pending', 'running', 'waiting', 'compensating', "
    "'completed', 'compensated', 'stuck', 'terminated'"
)
AT_REST = "'completed', 'compensated', 'stuck', 'terminated'"

NOW = sa.text("clock_timestamp()")

APPEND_ONLY = """
CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('saga.retention', true) = 'on' AND TG_OP <> 'UPDATE' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'events are append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'Retention drops whole partitions, or sets saga.retention to on.';
END $$
"""

NO_CHANGE = """
CREATE TRIGGER event_no_change BEFORE UPDATE OR DELETE ON event
    FOR EACH ROW EXECUTE FUNCTION event_is_append_only()
"""

# A statement trigger does not reach down to partitions: each has one of its own.
NO_TRUNCATE = """
CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION event_is_append_only()
"""


def upgrade() -> None:
    _create_saga()
    op.create_table(
        "saga_input",
        sa.Column("saga_id", sa.Uuid(), nullable=False),
        sa.Column("input", pg.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("saga_id", name="pk_saga_input"),
    )
    _create_event()


def downgrade() -> None:
    op.drop_table("event")
    op.execute("DROP SEQUENCE event_position")
    op.execute("DROP FUNCTION event_is_append_only()")
    op.drop_table("saga_input")
    op.drop_table("saga")


def _create_saga() -> None:
    op.create_table(
        "saga",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False, server_default=sa.text("'default'")),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("key", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("head", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("epoch", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("owner", sa.Uuid()),
        sa.Column("claims", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("inbox_seq", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("inbox_seen", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("context", pg.JSON(), nullable=False),
        sa.Column("tags", pg.JSONB(), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_saga"),
        sa.CheckConstraint(f"status IN ({STATUSES})", name=op.f("ck_saga_status")),
        sa.CheckConstraint(
            f"status NOT IN ({AT_REST}) OR (owner IS NULL AND due_at IS NULL)",
            name=op.f("ck_saga_at_rest"),
        ),
        sa.CheckConstraint("head >= 0 AND epoch >= 0 AND claims >= 0", name=op.f("ck_saga_counts")),
        sa.CheckConstraint("inbox_seen BETWEEN 0 AND inbox_seq", name=op.f("ck_saga_inbox")),
        sa.CheckConstraint("jsonb_typeof(tags) = 'object'", name=op.f("ck_saga_tags")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "uq_saga_key",
        "saga",
        ["namespace", "name", "key"],
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    op.create_index(
        "ix_saga_due",
        "saga",
        ["namespace", "name", "version", "due_at"],
        postgresql_where=sa.text("owner IS NULL AND due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_saga_owner", "saga", ["owner"], postgresql_where=sa.text("owner IS NOT NULL")
    )
    op.create_index(
        "ix_saga_tags",
        "saga",
        ["tags"],
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
        postgresql_where=sa.text("tags <> '{}'::jsonb"),
    )


def _create_event() -> None:
    op.execute("CREATE SEQUENCE event_position AS bigint CACHE 1")
    op.create_table(
        "event",
        sa.Column("saga_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "position",
            sa.BigInteger(),
            nullable=False,
            server_default=sa.text("nextval('event_position'::regclass)"),
        ),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("data", pg.JSON(), nullable=False),
        sa.Column("meta", pg.JSON(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("saga_id", "version", name="pk_event"),
        sa.CheckConstraint(
            "version > 0 AND position > 0 AND attempt >= 0 AND epoch > 0",
            name=op.f("ck_event_counts"),
        ),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_event_hash")),
        postgresql_partition_by="RANGE (saga_id)",
    )
    op.execute(APPEND_ONLY)
    op.execute(NO_CHANGE)
    op.execute(NO_TRUNCATE.format(table="event"))
    op.execute("CREATE TABLE event_default PARTITION OF event DEFAULT")
    op.execute("CREATE UNIQUE INDEX event_default_position ON event_default (position)")
    op.execute(NO_TRUNCATE.format(table="event_default"))

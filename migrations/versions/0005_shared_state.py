"""What sagas know of each other: circuits, rates, caches and budgets, each by its name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

HOT = {"fillfactor": 70}


def upgrade() -> None:
    op.create_table(
        "circuit",
        *_name(),
        sa.Column("failed", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("passed", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("opened_at", sa.DateTime(timezone=True)),
        sa.Column(
            "probes",
            postgresql.ARRAY(sa.DateTime(timezone=True)),
            nullable=False,
            server_default=sa.text("'{}'"),
        ),
        sa.PrimaryKeyConstraint("namespace", "name", name="pk_circuit"),
        sa.CheckConstraint("failed >= 0 AND passed >= 0", name=op.f("ck_circuit_counts")),
        sa.CheckConstraint(
            "opened_at IS NOT NULL OR (passed = 0 AND probes = '{}')",
            name=op.f("ck_circuit_closed"),
        ),
        postgresql_with=HOT,
    )
    op.create_table(
        "rate",
        *_name(),
        sa.Column("full_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name="pk_rate"),
        postgresql_with=HOT,
    )
    _create_cache()
    _create_budget()


def _create_cache() -> None:
    op.create_table(
        "cache_entry",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        *_name(),
        sa.Column("output", postgresql.JSON()),
        sa.Column("kept_at", sa.DateTime(timezone=True)),
        sa.Column("holder", sa.Text()),
        sa.Column("held_since", sa.DateTime(timezone=True)),
        sa.Column("held_until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("digest", name="pk_cache_entry"),
        sa.CheckConstraint(
            "(output IS NULL) = (kept_at IS NULL)", name=op.f("ck_cache_entry_kept")
        ),
        sa.CheckConstraint(
            "(holder IS NULL) = (held_since IS NULL) AND (holder IS NULL) = (held_until IS NULL)",
            name=op.f("ck_cache_entry_held"),
        ),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_cache_entry_digest")),
    )
    op.create_index("ix_cache_entry_kept", "cache_entry", ["namespace", "name", "kept_at"])


def _create_budget() -> None:
    op.create_table(
        "budget",
        *_name(),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name="pk_budget"),
        sa.CheckConstraint("abs(spent) < 'Infinity'", name=op.f("ck_budget_spent")),
        postgresql_with=HOT,
    )
    op.create_table(
        "budget_receipt",
        *_name(),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column(
            "spent_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("namespace", "name", "receipt", name="pk_budget_receipt"),
    )
    op.create_index(
        "ix_budget_receipt_spent_at", "budget_receipt", ["namespace", "name", "spent_at"]
    )


def downgrade() -> None:
    for table in ("budget_receipt", "budget", "cache_entry", "rate", "circuit"):
        op.drop_table(table)


def _name() -> tuple[sa.Column[str], sa.Column[str]]:
    return (
        sa.Column("namespace", sa.Text(), nullable=False, server_default=sa.text("'default'")),
        sa.Column("name", sa.Text(), nullable=False),
    )

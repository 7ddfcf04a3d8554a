"""The inbox: what the world tells an instance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("saga_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", pg.JSON(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("dedupe_key", sa.Text(), nullable=False),
        sa.Column(
            "sent_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.PrimaryKeyConstraint("saga_id", "seq", name="pk_inbox"),
        sa.UniqueConstraint("saga_id", "dedupe_key", name="uq_inbox_saga_id_dedupe_key"),
        sa.ForeignKeyConstraint(
            ["saga_id"], ["saga.id"], name="fk_inbox_saga_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("seq > 0", name=op.f("ck_inbox_seq")),
    )


def downgrade() -> None:
    op.drop_table("inbox")

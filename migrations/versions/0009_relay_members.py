"""The relays that share the shards, so that each of them knows its part."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "relay_member",
        sa.Column("relay", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("relay", "owner", name="pk_relay_member"),
    )


def downgrade() -> None:
    op.drop_table("relay_member")

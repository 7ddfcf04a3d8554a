"""Who waits for a rate has a place in a line."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty while nobody waits, and for workers whose code knows no line.
    op.add_column("rate", sa.Column("line_at", sa.DateTime(timezone=True)))
    op.add_column("rate", sa.Column("line_each", sa.Interval()))


def downgrade() -> None:
    op.drop_column("rate", "line_each")
    op.drop_column("rate", "line_at")

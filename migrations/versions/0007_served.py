"""A worker says which sagas it serves, so that an instance that waits can say whom it waits for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty for workers whose code does not say it yet.
    op.add_column("worker", sa.Column("namespace", sa.Text()))
    op.add_column("worker", sa.Column("definitions", JSONB()))


def downgrade() -> None:
    op.drop_column("worker", "definitions")
    op.drop_column("worker", "namespace")

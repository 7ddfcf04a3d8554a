"""Children know their parent, and a row knows that its pivot is behind it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("saga", sa.Column("parent", sa.Uuid()))
    op.add_column(
        "saga",
        sa.Column("parent_node", sa.Text(), nullable=False, server_default=sa.text("''")),
    )
    op.add_column(
        "saga", sa.Column("pivoted", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    op.create_index(
        "ix_saga_parent",
        "saga",
        ["parent", "id"],
        postgresql_where=sa.text("parent IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_saga_parent", "saga")
    op.drop_column("saga", "pivoted")
    op.drop_column("saga", "parent_node")
    op.drop_column("saga", "parent")

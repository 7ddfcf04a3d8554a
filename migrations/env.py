"""Alembic's entry: migrate over the connection handed in, or over one to SAGA_DATABASE_URL."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection

from orchestrator.adapters.postgres.migrate import (
    VERSION_TABLE,
    is_ours,
    on_database,
    same_default,
)
from orchestrator.adapters.postgres.tables import metadata


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=is_ours,
        compare_server_default=same_default,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations read the catalogue; run them on a database, not with --sql")

given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    on_database(os.environ["SAGA_DATABASE_URL"], migrate)

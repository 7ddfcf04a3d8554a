"""A hall for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scale.hall import FULL, Hall, open_hall
from tests.servers import DurableServer


@pytest.fixture
async def hall(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hall]:
    """A database of the test's own: durable and in its usual settings where times count."""
    if FULL:
        server: DurableServer = request.getfixturevalue("durable_pg")
        dsn = server.dsn
    else:
        dsn = request.getfixturevalue("dsn")
    async with open_hall(dsn, tmp_path) as opened:
        yield opened

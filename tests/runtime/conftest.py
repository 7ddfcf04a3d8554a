"""A stage for tests of the runtime on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.crash.field_hospital import Nursery
from tests.runtime.stage import MODULE, Stage, stage


@pytest.fixture
async def on_stage(dsn: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """A database of the test's own, and what workers on it do."""
    async with stage(dsn, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """What forks workers that may die."""
    with Nursery(MODULE) as opened:
        yield opened

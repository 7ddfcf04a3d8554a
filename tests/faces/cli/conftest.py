"""The prompt of a test: with the test sagas, on a database of the test's own, with a worker on it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from orchestrator.faces.cli import main
from tests.faces.cli.prompt import FLOWS, Prompt, Running, Said, worker


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Prompt:
    """`saga`, in this process, with the test sagas; which database is left to the test."""
    for name in [name for name in os.environ if name.startswith("SAGA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SAGA_SAGAS", FLOWS)
    # A wide terminal without colours, whatever the tester's is.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def saga(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return saga


@pytest.fixture
def saga(bare: Prompt, monkeypatch: pytest.MonkeyPatch, dsn: str) -> Prompt:
    """`saga` on a migrated database of the test's own."""
    monkeypatch.setenv("SAGA_DATABASE_URL", dsn)
    return bare


@pytest.fixture
def working(dsn: str) -> Iterator[Running]:
    """A worker on the database of the test; it must drain and end well afterwards."""
    with worker(dsn) as running:
        yield running
        assert running.end() == 0, running.lines

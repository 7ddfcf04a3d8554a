"""Programs that cannot be fetched are a reason to skip, and never one to hang or to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import packages
from tests.packages import NoPackageError, unpacked


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "_missing", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_cache_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be", "utf-8")
    with pytest.raises(NoPackageError, match="pgbouncer cannot be had"):
        unpacked("pgbouncer")


def test_an_archive_that_does_not_answer_is_a_reason_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        program = tmp_path / tool
        program.write_text(f"#!/bin/sh\necho once >> {asked}\nexec sleep 60\n", "utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(packages, "WITHIN", 0.5)
    for _ in range(2):
        with pytest.raises(NoPackageError, match="timed out"):
            unpacked("pgbouncer")
    assert asked.read_text("utf-8").split() == ["once"]
    assert list((tmp_path / "cache" / "saga-orchestrator").iterdir()) == []

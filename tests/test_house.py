"""The workshop itself: the Makefile, what CI runs, and what may not lie about in the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = {"help", "demo", "test", "lint", "mutants", "bench", "chaos", "contract", "up"}
OURS = re.compile(r"/(?:work|farm|root|home|Users)/[\w.-]+")
"""What only one machine has."""

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sources() -> list[Path]:
    """Every text that belongs to the project: what git would take."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@needs_make
def test_make_alone_lists_every_target() -> None:
    listed = set(re.findall(r"^  make (\w+)", run("make"), re.MULTILINE))
    assert listed == TARGETS
    assert run("make", "help") == run("make")


@needs_make
@pytest.mark.parametrize("target", sorted(TARGETS - {"help"}))
def test_every_target_prepares_its_environment(target: str) -> None:
    assert "setting up" in run("make", "--dry-run", "--always-make", target)


def test_ci_runs_what_everybody_runs() -> None:
    script = ROOT / ".ci" / "run"
    lines = script.read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]
    assert script.stat().st_mode & 0o111


def test_no_source_names_a_path_of_one_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources()
        for match in OURS.finditer(path.read_text("utf-8", errors="replace"))
        if not match[0].startswith("/home/saga")  # the user inside the image
    }
    assert found == set()


def test_no_lock_file_and_no_index_address_is_kept() -> None:
    names = {path.name for path in sources()}
    assert not names & {"uv.lock", "poetry.lock", "requirements.lock"}
    config = (ROOT / "pyproject.toml").read_text()
    assert "index-url" not in config
    assert "[[tool.uv.index]]" not in config


def test_the_wheel_carries_types_migrations_and_sagas() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert wheel["targets"]["wheel"]["packages"] == ["orchestrator", "sagas"]
    assert wheel["targets"]["wheel"]["force-include"] == {"migrations": "orchestrator/_migrations"}
    assert (ROOT / "orchestrator" / "py.typed").exists()
    assert (ROOT / "migrations" / "env.py").exists()


def test_every_ignored_rule_has_its_reason() -> None:
    config = (ROOT / "pyproject.toml").read_text()
    block = config.split("\nignore = [\n")[1].split("\n]")[0]
    assert all(re.search(r'",\s+# .', line) for line in block.splitlines())

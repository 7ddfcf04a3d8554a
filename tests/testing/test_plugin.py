"""The pytest plugin, as people meet it: in a project of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAGA = """
from orchestrator import Saga, WorkflowContext, step
from orchestrator.testing import Simulator

@step
async def greet(name: str, ctx: WorkflowContext) -> str:
    return f"hello {name}"

hello = Saga("hello", version=1, body=greet)
"""

TESTS = f"""{SAGA}
def test_it_runs(sim: Simulator) -> None:
    assert sim.run_sync(hello, "ann").result == "hello ann"

def test_it_fails(sim: Simulator) -> None:
    assert sim.run_sync(hello, "ann").result == "good bye"
"""

STRANGERS = """
import sys

def test_nothing_of_the_kit_is_loaded() -> None:
    assert "orchestrator.testing.simulator" not in sys.modules
    assert "pydantic" not in sys.modules
"""


def run(tmp_path: Path, tests: str, *options: str) -> str:
    (tmp_path / "test_theirs.py").write_text(tests)
    command = [
        sys.executable, "-m", "pytest", "-p", "orchestrator.testing.plugin", "-p", "no:randomly",
        "-p", "no:cacheprovider", "-W", "error", *options, str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_failure_says_its_seed(tmp_path: Path) -> None:
    text = run(tmp_path, TESTS)
    assert "1 failed, 1 passed" in text
    assert "seed 0; the same again: pytest --saga-seed=0" in text


def test_the_seed_can_be_chosen(tmp_path: Path) -> None:
    assert "--saga-seed=42" in run(tmp_path, TESTS, "--saga-seed", "42")
    assert "the same again: pytest --saga-seed=" in run(tmp_path, TESTS, "--saga-seed=random")


def test_a_seed_that_is_no_number_is_refused(tmp_path: Path) -> None:
    assert "say a whole number, or random" in run(tmp_path, TESTS, "--saga-seed=many")


def test_who_does_not_use_it_does_not_load_it(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, STRANGERS)


def test_a_fixture_of_their_own_by_the_same_name_wins(tmp_path: Path) -> None:
    tests = """
import pytest

@pytest.fixture
def sim() -> str:
    return "another kind of simulation"

def test_it_is_theirs(sim: str) -> None:
    assert sim == "another kind of simulation"
"""
    assert "1 passed" in run(tmp_path, tests)


def test_the_option_is_explained(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    assert "--saga-seed=N" in run(tmp_path, "", "--help")

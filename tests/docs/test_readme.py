"""What the README shows is run here, word for word."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import open_dir

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPET = re.search(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^\$ (.*?)(?:\s+#.*)?$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of one's own with the README's saga in it."""
    assert SNIPPET is not None
    folder = tmp_path_factory.mktemp("project")
    (folder / "trip.py").write_text(SNIPPET[1])
    return folder


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The embedded database lives where the account that runs it may enter."""
    with open_dir() as state:
        others = {k: v for k, v in os.environ.items() if not k.startswith("SAGA_")}
        yield {**others, "SAGA_STATE_DIR": str(state)}


def run(command: str, project: Path, environment: dict[str, str]) -> str:
    """The output of one of the README's commands, which names the programs of `.venv`."""
    words = shlex.split(command.replace(".venv/bin/", f"{Path(sys.executable).parent}/"))
    done = subprocess.run(
        words,
        check=False,
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_first_saga_fits_in_25_lines_of_its_own() -> None:
    assert SNIPPET is not None
    lines = [line for line in SNIPPET[1].splitlines() if line.strip()]
    assert len(lines) <= 25


def test_the_first_saga_does_what_the_readme_says(
    project: Path, environment: dict[str, str]
) -> None:
    first = run(".venv/bin/python trip.py", project, environment)
    assert first.splitlines() == [
        "flight to Paris, hotel included",
        "cancelled: flight to Atlantis",
        "compensated",
    ]
    again = run(".venv/bin/python trip.py", project, environment)
    assert "cancelled" not in again, "the keys are known, so nothing runs twice"

    listed = run(COMMANDS[2], project, environment)
    assert listed.count("trip") >= 2

    up = shlex.split(COMMANDS[3].replace(".venv/bin/", f"{Path(sys.executable).parent}/"))
    with subprocess.Popen(
        up, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as worker:
        try:
            result = run(COMMANDS[4], project, environment)
            assert "flight to Rome, hotel included" in result
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0


def test_the_readme_names_the_two_commands_and_files_that_exist() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target

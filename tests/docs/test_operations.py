"""The commands of the page for operators are run as they stand there, in a shell, beside a worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.faces.cli import app
from orchestrator.settings import Settings
from tests.docs.pages import DOCS, Page
from tests.faces.cli.prompt import environment, process

PAGE = Page(DOCS / "operations.md")
SCRIPTS = PAGE.blocks("sh")
LEADS_TO: list[dict[str, str]] = [
    {"ID": "completed"},
    {"ID": "compensated"},
    {"ID": "compensated", "OTHER": "compensated"},
    {"ID": "terminated"},
    {"ID": "completed"},
]
RECORDED = ["SignalReceived", "StepResolved", "StepRetried", "SagaResumed", "SignalReceived"]


def shell(script: str, dsn: str, folder: Path) -> str:
    """Run by `sh`, every command of it well; what it said on stdout."""
    there = environment(SAGA_DATABASE_URL=dsn, SAGA_SAGAS="transfers")
    there["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{there['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=folder, env=there, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(LEADS_TO)))
def test_each_script_leads_where_the_page_says(number: int, dsn: str, tmp_path: Path) -> None:
    [module] = PAGE.blocks("python")
    (tmp_path / "transfers.py").write_text(module, "utf-8")
    with process("worker", "--sagas", "transfers", cwd=tmp_path, SAGA_DATABASE_URL=dsn) as running:
        running.until("works on")
        asked = "\n".join(f'saga show "${name}" --json >{name}' for name in LEADS_TO[number])
        asked += '\nsaga history "$ID" --json >history'
        shell(f"{SCRIPTS[number]}\n{asked}", dsn, tmp_path)
        assert running.end() == 0
    for name, status in LEADS_TO[number].items():
        assert json.loads((tmp_path / name).read_text())["status"] == status
    history: list[dict[str, Any]] = json.loads((tmp_path / "history").read_text())
    assert RECORDED[number] in {event["type"] for event in history}


def test_every_script_is_run() -> None:
    assert len(SCRIPTS) == len(LEADS_TO) == len(RECORDED)


def test_the_page_names_every_setting_and_only_those_there_are() -> None:
    told = {row[0].strip("`") for row in PAGE.rows("Settings")}
    assert told == {f"SAGA_{name.upper()}" for name in Settings.model_fields}


def test_every_command_that_the_page_names_is_there() -> None:
    commands = {command.name for command in app.registered_commands}
    named = set(re.findall(r"`saga ([a-z]+)", PAGE.text))
    run = set(re.findall(r"\bsaga ([a-z]+)", "\n".join(SCRIPTS)))
    assert named | run <= commands
    for needed in ("signal", "retry", "skip", "resolve", "resume", "terminate"):
        assert f"`{needed}`" in PAGE.text or f"saga {needed}" in PAGE.text

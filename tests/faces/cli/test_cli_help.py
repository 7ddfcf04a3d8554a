"""What a newcomer reads first: every command explains itself, and a wrong word is corrected."""

from __future__ import annotations

import importlib.metadata

import pytest

from orchestrator.faces import cli
from tests.faces.cli.prompt import Prompt

COMMANDS = (
    "up", "demo", "worker", "relay", "consume", "migrate", "start", "list", "show", "history", "watch",
    "cancel", "replay", "verify", "graph", "doctor",
)  # fmt: skip


def test_the_help_names_every_command_in_groups(bare: Prompt) -> None:
    said = bare("--help")
    assert said.code == 0
    for group in ("Run", "Look", "Act", "Set up and check"):
        assert f" {group} " in said.out
    for command in COMMANDS:
        assert f" {command} " in said.out
    assert "saga demo" in said.out
    assert "SAGA_DATABASE_URL" in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_help_with_an_example_and_json(bare: Prompt, command: str) -> None:
    said = bare(command, "--help")
    assert said.code == 0
    assert "Example:" in said.out
    assert f"saga {command}" in said.out.partition("Example:")[2]
    assert "--json" in said.out


def test_the_version_is_that_of_the_package(bare: Prompt) -> None:
    said = bare("--version")
    assert said.out == f"saga-orchestrator {importlib.metadata.version('saga-orchestrator')}\n"
    assert said.code == 0


def test_the_installed_command_is_this_one() -> None:
    [script] = importlib.metadata.entry_points(group="console_scripts", name="saga")
    assert script.load() is cli.main


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("lst", "list"), ("strat", "start"), ("wach", "watch"), ("hist", "history")],
)
def test_an_unknown_command_is_answered_with_the_nearest(
    bare: Prompt, typed: str, meant: str
) -> None:
    said = bare(typed)
    assert said.code == 3
    assert "did you mean" in said.err
    assert meant in said.err
    assert meant in bare(typed, "--json").error["nearest"]


@pytest.mark.parametrize(
    "typed",
    [("start",), ("show",), ("list", "--limit", "0"), ("list", "--status", "odd"), ("list", "-x")],
)
def test_what_is_typed_wrong_is_a_usage_error_in_both_voices(
    bare: Prompt, typed: tuple[str, ...]
) -> None:
    assert bare(*typed).code == 2
    error = bare(*typed, "--json").error
    assert error["exit_code"] == 2
    assert error["message"]

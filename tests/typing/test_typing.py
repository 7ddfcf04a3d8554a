"""Both type checkers accept what the language allows and refuse what it does not."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import Saga

HERE = Path(__file__).parent
PROGRAMS = [str(HERE / "accepted.py"), str(HERE / "refused.py")]
ROOT = HERE.parents[1]
LIMIT = 300

Errors = dict[tuple[str, int], str]
"""What a checker says, by file and line."""


def mypy() -> Errors:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty"]
    done = _run([*command, "--follow-imports=silent", *PROGRAMS])
    found: Errors = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"(.+?):(\d+): error: (.+)", line):
            _add(found, match[1], int(match[2]), match[3])
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return found


def pyright() -> Errors:
    if shutil.which("pyright", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("pyright is not installed")
    command = [sys.executable, "-m", "pyright", "--outputjson", f"--pythonpath={sys.executable}"]
    done = _run([*command, *PROGRAMS])
    try:
        report = json.loads(done.stdout)
    except ValueError:
        pytest.skip(f"pyright cannot run here: {(done.stdout + done.stderr)[-500:]}")
    found: Errors = {}
    for item in report["generalDiagnostics"]:
        if item["severity"] == "error":
            _add(found, item["file"], item["range"]["start"]["line"] + 1, item["message"])
    return found


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def _add(found: Errors, file: str, line: int, message: str) -> None:
    place = (Path(file).name, line)
    found[place] = f"{found.get(place, '')}\n{message}".strip()


def expected(checker: str) -> dict[int, str]:
    """The lines of refused.py that this checker must refuse, with a part of its message.

    `# E:` stands for both checkers, `# E mypy:` and `# E pyright:` for one of them.
    """
    lines: dict[int, str] = {}
    for number, line in enumerate((HERE / "refused.py").read_text().splitlines(), 1):
        match = re.search(r"# E(?: (\w+))?:\s*(.*)$", line)
        if match and match[1] in (None, checker):
            lines[number] = match[2]
    return lines


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def checked(request: pytest.FixtureRequest) -> tuple[str, Errors]:
    run: Callable[[], Errors] = request.param
    return run.__name__, run()


def test_accepts_all_that_the_language_allows(checked: tuple[str, Errors]) -> None:
    assert {place: text for place, text in checked[1].items() if place[0] == "accepted.py"} == {}


def test_refuses_each_mistake_on_its_line_and_nothing_else(checked: tuple[str, Errors]) -> None:
    checker, errors = checked
    found = {line: text for (file, line), text in errors.items() if file == "refused.py"}
    wanted = expected(checker)
    assert len(wanted) >= 100
    assert found.keys() == wanted.keys()
    for line, part in wanted.items():
        assert part in found[line]


def test_all_that_is_accepted_can_be_built() -> None:
    built = runpy.run_path(str(HERE / "accepted.py"))
    assert {"order", "bulk", "deal"} <= {v.name for v in built.values() if isinstance(v, Saga)}

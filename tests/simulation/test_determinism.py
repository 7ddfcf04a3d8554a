"""Nothing that the simulation plays takes time, chance or names from the machine behind its back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "orchestrator"
PLAYED = ("domain", "runtime", "adapters/memory")
FORBIDDEN = {"time", "random", "uuid", "secrets"}
CALLS = {"now", "utcnow", "today", "urandom", "time_ns", "getpid", "perf_counter"}
OWN = {
    "runtime/machine.py": "the one place where the runtime takes them from the machine",
    "domain/ids.py": "makes a UUID of given bits",
    "domain/context.py": "what a context says before a worker gives it its own clock",
    "runtime/service.py": "reads a UUID",
    "runtime/worker.py": "says the process id in its label, for people",
}
"""Modules with a reason of their own."""
MODULES = [
    path
    for part in PLAYED
    for path in sorted((ROOT / part).rglob("*.py"))
    if str(path.relative_to(ROOT)) not in OWN
]


def _takes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name in FORBIDDEN)
            case ast.ImportFrom(module=str(module), level=0) if module in FORBIDDEN:
                yield module
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name)):
                if name in CALLS and owner in ("datetime", "date", "os", "time"):
                    yield f"{owner}.{name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_takes_time_and_chance_from_what_it_is_given(path: Path) -> None:
    assert sorted(_takes(ast.parse(path.read_text()))) == []


def test_the_worker_takes_nothing_but_its_process_id() -> None:
    tree = ast.parse((ROOT / "runtime/worker.py").read_text())
    assert set(_takes(tree)) == {"os.getpid"}


def test_the_check_sees_what_it_forbids() -> None:
    text = "import time\nfrom random import choice\nx = datetime.now()\nimport os.path\n"
    assert sorted(_takes(ast.parse(text))) == ["datetime.now", "random", "time"]

"""The test module on the page about testing is run by a pytest of its own; its failure is a real one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator import Attempted, Saga, WorkflowContext, step
from orchestrator.testing import CrashPointFailed, crash_points

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


def test_the_module_on_the_page_passes(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "test_order.py").write_text(blocks[0])
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_order.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


@dataclass
class Bank:
    """Takes money, and remembers for what."""

    balance: int = 1_000
    paid: dict[str, int] = field(default_factory=dict)


@step
async def pay(sku: str, ctx: WorkflowContext) -> str:
    bank = ctx.use(Bank)
    if ctx.idempotency_key not in bank.paid:
        bank.balance -= 100
        bank.paid.update({ctx.idempotency_key: 100})
    return sku


@pay.compensation_on_doubt
async def give_back(tried: Attempted[str, str], ctx: WorkflowContext) -> None:
    bank = ctx.use(Bank)
    bank.balance += bank.paid.pop(tried.key, 0)


@step
async def ship(sku: str, ctx: WorkflowContext) -> str:
    return sku


def test_a_failure_is_told_as_the_page_shows_it() -> None:
    [shown] = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    body = pay >> ship.without_undo("it only looks")
    with pytest.raises(CrashPointFailed) as failed:
        crash_points(Saga("order", 1, body), "lamp", resources={Bank: Bank()})
    assert str(failed.value).splitlines() == shown.splitlines()

"""What the runtime takes from the machine."""

from __future__ import annotations

import asyncio
import shutil
import sys

import pytest

AFTER_A_SLEEP = ["unshare", "--time", "--boottime", "1000", "--fork"]
"""A machine that slept for so many seconds, as far as its processes can see."""

LOOK = """
import time
from orchestrator.runtime import machine
print(machine.monotonic() - time.monotonic())
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="Linux only")
async def test_the_time_for_which_the_machine_slept_has_passed_as_well() -> None:
    process = await asyncio.create_subprocess_exec(
        *AFTER_A_SLEEP, sys.executable, "-c", LOOK,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await process.communicate()
    if process.returncode and b"unshare" in error:
        pytest.skip(f"not allowed here: {error.decode()}")

    assert float(out) == pytest.approx(1000, abs=1)

"""A whole chaos run: CHAOS_SIZE says how large (smoke, nightly, release), CHAOS_SEED which one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.run import run_chaos
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.sizes import SIZES, Size, chosen_seed, chosen_size

SIZE = chosen_size()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_same_seed_plans_the_same_faults(size: Size) -> None:
    planned = schedule(size, 7, broker=True)

    assert planned == schedule(size, 7, broker=True)
    assert planned != schedule(size, 8, broker=True)
    assert {stroke.kind for stroke in planned} == set(KINDS)
    assert "end broker" not in {stroke.kind for stroke in schedule(size, 7, broker=False)}


@pytest.mark.skipif("CHAOS_SIZE" not in os.environ, reason="make test and make chaos run it alone")
@pytest.mark.chaos
@pytest.mark.crash
@pytest.mark.kafka
@pytest.mark.timeout(2 * (SIZE.warm_up + SIZE.safety + 2 * SIZE.patience + 240))
def test_nothing_is_lost_while_everything_is_killed_stopped_and_cut_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdict, say = _played(capsys)
    if verdict == "void" and SIZE.name == "smoke":
        # In so short a time not everything comes about: that shows nothing, either way.
        verdict, say = _played(capsys)
    assert verdict == "passed", say


def _played(capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """The verdict of one run, and how to repeat it with what it told."""
    seed = chosen_seed()
    folder = Path(tempfile.mkdtemp(prefix="saga-chaos-"))
    say = f"repeat with CHAOS_SIZE={SIZE.name} CHAOS_SEED={seed}; logs in {folder}"
    try:
        report = run_chaos(SIZE, seed, folder)
    except Exception as error:
        raise AssertionError(f"the run did not come to its end: {error!r}; {say}") from error
    told = (folder / "report.txt").read_text("utf-8")
    with capsys.disabled():
        print(f"\n{told}")
    if report["verdict"] == "passed":
        shutil.rmtree(folder)
    return report["verdict"], f"{say}\n{told}"

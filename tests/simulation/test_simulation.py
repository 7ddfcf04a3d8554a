"""The real worker, engine, recorder and relay in thousands of rough worlds, each from one number.

SIM_SEED=42 .venv/bin/python -m pytest tests/simulation -k one_seed -s    shows one of them
SIM_SEEDS=100000 .venv/bin/python -m pytest tests/simulation -k no_seed   plays more of them
SIM_FROM=3000 SIM_SEEDS=5000 .venv/bin/python -m pytest ...               plays others
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.checks import wrongs
from tests.simulation.faults import KINDS
from tests.simulation.mutants import MUTANTS
from tests.simulation.world import World

SEEDS = int(os.environ.get("SIM_SEEDS", "3000"))
FIRST = int(os.environ.get("SIM_FROM", "0"))
ENOUGH = 2_000
"""So many seeds have every kind of fault, and come to every place, at least once."""
TWICE = 100
SHOWN = 5

SOMETIMES = (
    "takeovers", "lost_leases", "refused_appends", "relay_terms", "relay_failures", "relays_fenced",
    "StepStarted", "StepInDoubt", "StepFailed", "RetryScheduled", "ProbeAnswered", "FallbackTaken",
    "CompensationStarted", "StepCompensated", "CompensationFailed", "SagaStuck", "StepResolved",
    "SagaResumed", "StepRetried", "CancelRequested", "CancelRefused", "SagaTerminated",
    "DeadlinePassed", "PivotPassed", "SignalReceived", "WaitStarted", "WaitEnded", "TimerFired",
    "ChildStarted", "ChildUndoRequested", "ChildCancelRequested", "BranchesHalted", "FlowReturned",
    "StepHeld", "CacheHit", "SagaCompleted", "SagaCompensated",
)  # fmt: skip
"""What must have come about somewhere, or the run says nothing."""


@pytest.fixture(autouse=True)
def hushed() -> Iterator[None]:
    """What the runtime has to say about thousands of crashes is not asked for."""
    log = logging.getLogger("orchestrator")
    before, log.level = log.level, logging.CRITICAL + 1
    log.manager._clear_cache()  # type: ignore[attr-defined]  # levels are remembered
    yield
    log.level = before
    log.manager._clear_cache()  # type: ignore[attr-defined]  # as above


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(0)
def test_no_seed_breaks_a_promise_and_every_fault_has_fired() -> None:
    fired: Counter[str] = Counter()
    came_about: Counter[str] = Counter()
    broken: list[str] = []
    for seed in range(FIRST, FIRST + SEEDS):
        world = World(seed)
        world.run()
        if found := wrongs(world):
            broken.append(_told(world, found))
        fired.update(world.faults.counts)
        came_about.update(world.counts)
    print("\n".join(f"{count:9} {kind}" for kind, count in fired.most_common()))
    assert not broken, f"{len(broken)} of {SEEDS} seeds\n\n" + "\n\n".join(broken[:SHOWN])
    if SEEDS >= ENOUGH:
        assert [kind for kind in KINDS if not fired[kind]] == []
        assert [what for what in SOMETIMES if not came_about[what]] == []


def test_the_same_seed_twice_is_the_same_run() -> None:
    for seed in range(TWICE):
        first, second = World(seed), World(seed)
        first.run()
        second.run()
        assert first.timeline.trace == second.timeline.trace, f"seed {seed}"
        assert first.digest() == second.digest(), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    assert any(_found_out(name, seed) for seed in range(3_000)), f"nobody noticed: {name}"


@pytest.mark.skipif("SIM_SEED" not in os.environ, reason="SIM_SEED=n shows one seed")
def test_one_seed_and_its_trace() -> None:
    world = World(int(os.environ["SIM_SEED"]))
    world.run()
    found = wrongs(world)
    print("\n".join(world.timeline.trace))
    assert not found, _told(world, found)


def _found_out(name: str, seed: int) -> bool:
    world = World(seed, MUTANTS[name]())
    world.run()
    return bool(wrongs(world))


def _told(world: World, found: list[str]) -> str:
    tail = "\n".join(world.timeline.trace[-60:])
    return (
        f"seed {world.seed}: {len(found)} wrongs\n  "
        + "\n  ".join(found[:10])
        + f"\nsagas: {', '.join(world.cases)}\nfaults: {', '.join(world.faults.kinds)}\n{tail}\n"
        f"again: SIM_SEED={world.seed} .venv/bin/python -m pytest tests/simulation -k one_seed -s"
    )

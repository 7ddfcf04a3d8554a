"""The pytest plugin: the fixture `sim`, and `--saga-seed`. Loads the kit when a test asks for it."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from orchestrator.testing.simulator import Simulator

_SIM = pytest.StashKey["Simulator"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("saga-orchestrator")
    group.addoption(
        "--saga-seed",
        default="0",
        metavar="N",
        help="seed of the `sim` fixture: the order in which parallel steps answer; or 'random'",
    )


@pytest.fixture
def sim(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A `Simulator`, seeded by --saga-seed; when the test fails, the report says by what."""
    from orchestrator.testing.simulator import Simulator

    with Simulator(_seed(request.config)) as simulator:
        request.node.stash[_SIM] = simulator
        yield simulator


def _seed(config: pytest.Config) -> int:
    given = str(config.getoption("--saga-seed", "0"))
    if given == "random":
        return random.SystemRandom().randrange(1_000_000)
    try:
        return int(given)
    except ValueError:
        raise pytest.UsageError(f"--saga-seed={given}: say a whole number, or random") from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    simulator = item.stash.get(_SIM, None)
    if simulator is not None and call.when == "call" and report.failed:
        text = f"seed {simulator.seed}; the same again: pytest --saga-seed={simulator.seed}"
        report.sections.append(("saga simulator", text))
    return report

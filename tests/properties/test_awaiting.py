"""What an instance is said to wait for is what its plan waits for, in every life."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.domain.awaiting import Want, awaited
from orchestrator.domain.commands import WatchChild
from orchestrator.domain.guards import Budget
from orchestrator.domain.saga import walk
from tests.drive import Drive
from tests.properties.test_laws import Fate, fates, lived
from tests.properties.trees import Case, cases
from tests.properties.worlds import World, worlds

pytestmark = pytest.mark.timeout(36_000)  # LAW_EXAMPLES may be large

EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "2000")) // 10


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), worlds, fates)
def test_what_is_said_to_be_waited_for_is_what_the_plan_waits_for(
    case: Case, world: World, fate: Fate
) -> None:
    lived(case, world, fate, _agrees)


def _agrees(run: Drive) -> None:
    """Whenever nothing is left but to wait: the same next time, the same children."""
    if any(isinstance(node, Budget) for node in walk(run.saga.tree)):
        return  # a budget that is used up halts what begins, and not what waits
    plan = run.plan()
    if run.over or plan.decisions or not all(isinstance(c, WatchChild) for c in plan.commands):
        return
    found = awaited(run.state, [(run.now, event) for event in run.history], run.now)
    assert min((one.until for one in found if one.until), default=None) == plan.wake_at
    children = {one.name for one in found if one.want in (Want.CHILD, Want.CHILD_UNDO)}
    assert children == {c.child_id for c in plan.commands if isinstance(c, WatchChild)}
    assert all(one.since is not None for one in found)

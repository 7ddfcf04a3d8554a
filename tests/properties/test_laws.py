"""Laws that hold for every saga, every world and every fate: random trees of all primitives.

The same 2,000 examples every time. With `LAW_EXAMPLES` that many are drawn anew: `make chaos` tries a
hundred thousand.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orchestrator.domain import events as ev
from orchestrator.domain.backward import FlowNotLoadedError
from orchestrator.domain.branching import Fallback
from orchestrator.domain.commands import RunStep
from orchestrator.domain.decider import plan
from orchestrator.domain.events import Event, Status
from orchestrator.domain.evolve import evolve, fold
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.forward import Forward
from orchestrator.domain.planning import Done, Place
from orchestrator.domain.state import SagaState
from orchestrator.domain.transitions import TRANSITIONS
from orchestrator.domain.wrappers import Retry, Scope, Timeout, is_composite
from tests.drive import BOUND, SAGA_ID, Drive
from tests.properties.ledger import Ledger
from tests.properties.trees import Case, cases
from tests.properties.worlds import World, drive, durations, lasting, worlds

pytestmark = pytest.mark.timeout(36_000)  # LAW_EXAMPLES may be large

EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "2000"))
ENDS = (ev.SagaCompleted, ev.SagaCompensated, ev.SagaStuck, ev.SagaTerminated)
OUTCOMES = (ev.StepSucceeded, ev.StepFailed, ev.StepInDoubt, ev.StepHeld, ev.CacheHit)


def lawful(share: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A law that gets this share of all examples."""
    return settings(
        max_examples=max(1, round(EXAMPLES * share)),
        deadline=None,
        derandomize="LAW_EXAMPLES" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


# ---------------------------------------------------------------------------- fates


@dataclass(frozen=True)
class Fate:
    """What comes from outside: times in seconds, crashes by the number of the turn.

    Signals that are `alike` carry the same, so that it is the same which wait gets which.
    """

    signals: tuple[int, ...] = ()
    cancel: float | None = None
    terminate: float | None = None
    crashes: tuple[int, ...] = ()
    away: int = 0
    announced: bool = False
    alike: bool = False


CALM = Fate(signals=(0,) * 12, alike=True)
fates = st.builds(
    Fate,
    st.lists(st.integers(0, 40), max_size=4).map(tuple),
    st.sampled_from([*40 * [None], *range(20)]),
    st.sampled_from([*200 * [None], *range(20)]),
    st.lists(st.integers(0, 30), max_size=3).map(tuple),
    st.integers(0, 30),
    st.booleans(),
)


def begun(case: Case, world: World, fate: Fate) -> Drive:
    run = drive(case, world)
    for number, at in enumerate((*fate.signals, *[600] * 40)):
        run.send("signal", after=at, name="go", data="7" if fate.alike else str(number))
    for kind, when in (("cancel", fate.cancel), ("terminate", fate.terminate)):
        if when is not None:
            run.send(kind, after=when, reason="enough")
    if fate.announced:
        run.announce_after = timedelta(seconds=5)
    return run


def lived(
    case: Case, world: World, fate: Fate, watch: Callable[[Drive], None] | None = None
) -> Drive:
    """A whole life, up to its end or to where a person is needed."""
    run = begun(case, world, fate)
    for turn in range(BOUND):
        if run.over:
            return run
        if turn in fate.crashes:
            run.work()
            run.now += timedelta(seconds=fate.away)
            run.crash()
        if watch is not None and not run.over:
            watch(run)
        if not run.over:
            run.turn()
    raise AssertionError(f"no end after {BOUND} turns: {run.history[-5:]}")


# ---------------------------------------------------------------------------- laws of every life


@lawful(0.5)
@given(cases(), worlds, fates)
def test_every_life_keeps_the_laws(case: Case, world: World, fate: Fate) -> None:
    def watch(run: Drive) -> None:
        if isinstance(run.history[-1], ev.CompensationStarted):
            _leaves_nothing_behind_in_a_scope(case, run)

    run = lived(case, world, fate, watch)
    _ends_once_by_legal_events(run)
    _is_the_fold_of_its_history(run)
    _undoes_all_that_may_have_happened(case, run)
    _undoes_in_order(case, run)
    _leaves_nothing_behind_before_it_goes_on(case, run)
    if run.state.status is Status.COMPLETED:
        _leaves_nothing_behind_in_a_scope(case, run)
    _runs_no_path_again_that_succeeded_or_was_undone(run)
    _begins_nothing_after_it_turned_round(run)
    _undoes_nothing_after_the_pivot(run)
    _never_completes_what_was_cancelled(run)
    _hands_signals_out_in_order(run)
    _keeps_items_in_their_places(run)
    _forgets_nothing_that_it_began(run)


def _ends_once_by_legal_events(run: Drive) -> None:
    status = Status.PENDING
    for event in run.history:
        status = TRANSITIONS[status][type(event)]
    assert run.state.status in ("completed", "compensated", "stuck", "terminated")
    ends = [index for index, event in enumerate(run.history) if isinstance(event, ENDS)]
    assert ends == [len(run.history) - 1]


def _is_the_fold_of_its_history(run: Drive) -> None:
    assert fold(SAGA_ID, run.history) == run.state


def _undoes_all_that_may_have_happened(case: Case, run: Drive) -> None:
    """Each exactly once, and nothing else."""
    ledger = Ledger(case.steps)
    for event in run.history:
        if isinstance(event, ev.StepCompensated):
            assert event.node in ledger.left
        ledger.note(event)
    if run.state.status is Status.COMPENSATED:
        assert not ledger.left
    assert max(Counter(ledger.undone).values(), default=1) == 1


def _undoes_in_order(case: Case, run: Drive) -> None:
    """The youngest first: of all, or of the scope that failed."""
    if case.side_by_side:
        return
    ledger = Ledger(case.steps)
    for event in run.history:
        if isinstance(event, ev.StepCompensated):
            assert ledger.below(event.scope or run.saga.name)[-1] == event.node
        ledger.note(event)


def _leaves_nothing_behind_before_it_goes_on(case: Case, run: Drive) -> None:
    """A scope that runs again, or takes an alternative, was undone before."""
    ledger = Ledger(case.steps)
    pivoted = False
    for event in run.history:
        ledger.note(event)
        pivoted = pivoted or isinstance(event, ev.PivotPassed)
        again = isinstance(event, ev.RetryScheduled) and "@" in event.target.rpartition("/")[2]
        if again or isinstance(event, ev.FallbackTaken):
            assert pivoted or not ledger.below(event.node)  # type: ignore[union-attr]  # both have one


def _leaves_nothing_behind_in_a_scope(case: Case, run: Drive) -> None:
    """Where all has come as far as it ever will, what is not done has been undone."""
    if run.state.pivoted:
        return
    ledger = Ledger(case.steps).read(run.history)
    rules = Forward(run.saga, run.state, run.now, run.nodes)
    for place in _contents_of_scopes(run, rules):
        assert not ledger.below(place.path) or isinstance(rules.progress(place), Done)


def _contents_of_scopes(run: Drive, rules: Forward) -> Iterator[Place]:
    """All that a scope is round, as far as it was come to; without flows that are not loaded."""
    waiting = [run.saga.name]
    while waiting:
        path = waiting.pop()
        below = [f"{path}/{segment}" for segment in run.state.at(path).children]
        with suppress(FlowNotLoadedError):
            node = rules.place_at(path).node
            around = isinstance(node, Retry | Timeout) and is_composite(node.inner)
            if around or isinstance(node, Scope | Fallback | FlowNode):
                yield from map(rules.place_at, below)
            waiting += below


def _runs_no_path_again_that_succeeded_or_was_undone(run: Drive) -> None:
    gone: set[str] = set()
    for event in run.history:
        if isinstance(event, ev.StepSucceeded | ev.StepFailed | ev.StepInDoubt):
            assert event.node not in gone
        if isinstance(event, ev.StepCompensated | ev.StepSucceeded):
            gone.add(event.node)


def _begins_nothing_after_it_turned_round(run: Drive) -> None:
    """Only what was under way by then has an outcome afterwards."""
    allowed: set[str] | None = None
    for event in run.history:
        if isinstance(event, ev.PivotPassed):
            allowed = None
        elif isinstance(event, ev.CancelRequested | ev.DeadlinePassed | ev.HistoryLimitReached):
            whole = not isinstance(event, ev.DeadlinePassed) or not event.node
            if whole and allowed is None:
                allowed = set(event.running)
        elif allowed is not None:
            if isinstance(event, ev.StepSucceeded | ev.StepFailed | ev.StepInDoubt):
                assert event.node in allowed
                allowed.discard(event.node)
            assert not isinstance(event, ev.TimerSet | ev.WaitStarted | ev.ChildRequested)


def _undoes_nothing_after_the_pivot(run: Drive) -> None:
    kinds = [type(event) for event in run.history]
    if ev.PivotPassed in kinds:
        after = kinds[kinds.index(ev.PivotPassed) :]
        assert not {ev.StepCompensated, ev.CompensationStarted, ev.SagaCompensated} & set(after)


def _never_completes_what_was_cancelled(run: Drive) -> None:
    refused = [event for event in run.history if isinstance(event, ev.CancelRefused)]
    asked = any(isinstance(event, ev.CancelRequested) for event in run.history)
    if run.state.status is Status.COMPLETED:
        assert not asked or refused
    assert not refused or run.state.pivoted


def _hands_signals_out_in_order(run: Drive) -> None:
    """First in, first out; the wait that began first gets the first."""
    kept: list[str] = []
    waiting: list[str] = []
    given_to: dict[str, str] = {}
    for event in run.history:
        match event:
            case ev.SignalReceived(payload=payload):
                kept.append(payload)
            case ev.WaitStarted(node=node):
                given_to.pop(node, None)
                waiting.append(node)
            case ev.WaitEnded(node=node):
                waiting.remove(node)
            case _:
                continue
        while kept and waiting:
            given_to[waiting.pop(0)] = kept.pop(0)
    for place, text in given_to.items():
        assert run.state.at(place).output == text


def _keeps_items_in_their_places(run: Drive) -> None:
    for event in run.history:
        if isinstance(event, ev.ItemSucceeded):
            items = run.state.at(event.node).fan_out
            assert items is not None
            assert items.outputs[event.item] == event.output


def _forgets_nothing_that_it_began(run: Drive) -> None:
    if run.state.status not in ("completed", "compensated"):
        return
    recorded = {(e.node, e.attempt) for e in run.history if isinstance(e, OUTCOMES[:3])}
    asked = {e.node for e in run.history if isinstance(e, OUTCOMES[3:])}
    for command in run.begun:
        if isinstance(command, RunStep) and command.path not in asked:
            assert (command.path, command.attempt) in recorded


# ---------------------------------------------------------------------------- laws of plans


@lawful(0.1)
@given(cases(), worlds, fates, st.data())
def test_folding_a_prefix_and_then_the_rest_is_folding_all(
    case: Case, world: World, fate: Fate, data: st.DataObject
) -> None:
    run = lived(case, world, fate)
    cut = data.draw(st.integers(0, len(run.history)))
    state = fold(SAGA_ID, run.history[:cut])
    for event in run.history[cut:]:
        evolve(state, event)
    assert state == fold(SAGA_ID, run.history) == run.state


@lawful(0.1)
@given(cases(), worlds, fates)
def test_a_plan_after_a_crash_is_the_plan_without_one_at_every_prefix(
    case: Case, world: World, fate: Fate
) -> None:
    def same(run: Drive) -> None:
        again = fold(SAGA_ID, run.history)
        assert again == run.state
        here = plan(run.saga, run.state, run.now, run.nodes)
        assert plan(run.saga, again, run.now, run.nodes) == here
        assert again == run.state
        assert here.decisions or here.commands or here.wake_at is not None or _waits(run.state)
        assert here.wake_at is None or here.wake_at > run.now

    lived(case, world, fate, same)


def _waits(state: SagaState) -> bool:
    return any(state.waiters.values())


@lawful(0.05)
@given(cases(), worlds, fates)
def test_the_end_of_a_life_is_followed_by_nothing(case: Case, world: World, fate: Fate) -> None:
    run = lived(case, world, fate)
    nothing = plan(run.saga, run.state, run.now + timedelta(days=1), run.nodes)
    assert (nothing.decisions, nothing.commands, nothing.wake_at) == ((), (), None)


@lawful(0.05)
@given(cases(), worlds, fates, st.integers(0, 40), st.integers(0, 30))
def test_what_ran_when_an_owner_died_is_suspected_by_the_next(
    case: Case, world: World, fate: Fate, turns: int, away: int
) -> None:
    run = begun(case, world, fate)
    for _ in range(turns):
        if not run.over:
            run.turn()
    run.work()
    assume(not run.over)
    before = set(run.under_way)
    run.now += timedelta(seconds=away)
    run.crash()
    assert before <= set(run.under_way)


# ---------------------------------------------------------------------------- laws of two lives


@lawful(0.08)
@given(cases(calm=True), worlds, durations)
def test_any_order_in_which_outcomes_arrive_ends_the_same(
    case: Case, world: World, other: dict[str, int]
) -> None:
    one = lived(case, world, CALM)
    two = lived(case, replace(world, takes=other), CALM)
    assert one.state.status == two.state.status
    assert one.state.result == two.state.result


@lawful(0.05)
@given(cases(calm=True, wide=True), durations, lasting)
def test_where_nothing_fails_any_order_gives_the_same_result(
    case: Case, takes: dict[str, int], other: dict[str, int]
) -> None:
    one = lived(case, World({}, {}, {}, takes), CALM)
    two = lived(case, World({}, {}, {}, other), CALM)
    assert one.state.status == two.state.status == "completed"
    assert one.state.result == two.state.result


@lawful(0.07)
@given(cases(calm=True), worlds, st.lists(st.integers(0, 40), max_size=4), st.integers(0, 30))
def test_crashes_at_any_moments_lead_to_the_same_end(
    case: Case, world: World, crashes: list[int], away: int
) -> None:
    whole = lived(case, world, CALM)
    run = lived(case, world, replace(CALM, crashes=tuple(crashes), away=away))
    assert run.state.status == whole.state.status
    assert run.state.result == whole.state.result
    assert Counter(_undone(run.history)) == Counter(_undone(whole.history))


def _undone(history: list[Event]) -> list[str]:
    return [event.node for event in history if isinstance(event, ev.StepCompensated)]


@lawful(0.05)
@given(cases(), worlds, fates, st.data())
def test_a_stuck_life_can_be_mended_until_it_ends(
    case: Case, world: World, fate: Fate, data: st.DataObject
) -> None:
    run = lived(case, world, fate)
    assume(run.state.status is Status.STUCK)
    for number in range(60):
        if run.state.status is not Status.STUCK:
            break
        _repair(run, data.draw(st.sampled_from(["retry", "resume"])) if number < 10 else "")
        run.run()
    assert run.state.status in ("completed", "compensated", "terminated")
    ledger = Ledger(case.steps).read(run.history)
    assert run.state.status is not Status.COMPENSATED or not ledger.left


@lawful(0.05)
@given(cases(pivots=False), worlds, fates)
def test_a_completed_life_goes_back_when_its_parent_asks(
    case: Case, world: World, fate: Fate
) -> None:
    run = lived(case, world, replace(fate, cancel=None, terminate=None))
    assume(run.state.status is Status.COMPLETED)
    run.repair("undo", reason="the parent goes back")
    run.run()
    assert run.state.status in ("compensated", "stuck")
    _is_the_fold_of_its_history(run)
    _undoes_all_that_may_have_happened(case, run)
    _undoes_in_order(case, run)


def _repair(run: Drive, kind: str) -> None:
    """One of the things that a person can do; in the end, what always helps."""
    stuck = run.state.stuck
    assert stuck is not None
    node = run.state.at(stuck.node)
    if kind:
        run.repair(kind, reason="try")
    elif node.doubtful and node.undo_failure is None:
        run.repair("resolve", step=stuck.node, happened=False)
    elif stuck.node in (run.state.root.to_undo or ()) and not run.state.pivoted:
        run.repair("skip", step=stuck.node, reason="by hand")
    else:
        run.repair("terminate", reason="enough")

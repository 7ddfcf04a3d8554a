"""Laws that hold for every tree and every world: random flows, outcomes, durations, crashes.

`LAW_EXAMPLES` sets how many examples each law is tried with.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orchestrator.domain import events as ev
from orchestrator.domain.commands import (
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    RunCompensation,
    RunStep,
    Succeeded,
)
from orchestrator.domain.decider import plan
from orchestrator.domain.definition import Parallel, Primitive, Pure, Retry, Sequential, Timeout
from orchestrator.domain.events import Event, Failure, Json, Status
from orchestrator.domain.saga import Saga, is_composite
from orchestrator.domain.state import TRANSITIONS, evolve, fold
from orchestrator.domain.steps import Step, step
from tests.spec import BROKEN, DECLINED, SAGA_ID, START, UNKNOWN, Answer, Drive, name_of

pytestmark = pytest.mark.timeout(3_600)  # LAW_EXAMPLES may be large

lawful = settings(
    max_examples=int(os.environ.get("LAW_EXAMPLES", "500")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

LEAVES = 6
NAMES = [f"n{number}" for number in range(LEAVES)]
OUTCOMES: dict[str, Outcome] = {
    "succeeds": Succeeded(Json('"out"')),
    "fails": Failed(BROKEN),
    "is declined": Failed(DECLINED),
    "is in doubt": InDoubt(UNKNOWN),
}


# ---------------------------------------------------------------------------- random flows


async def act(value: Any, ctx: Any) -> Any:
    return value


async def take_back(done: Any, ctx: Any) -> None:
    return None


def leaf(name: str, kind: str) -> Primitive[Any, Any]:
    if kind == "pure":
        return Pure(name, str, Any, Any)
    made: Step[Any, Any] = step(name=name, once="once" in kind)(act)
    if "undo" in kind:
        made.compensation(retries=2)(take_back)
    if "doubt" in kind:
        made.compensation_on_doubt(retries=2)(take_back)
    return made


def build(shape: Any, names: Iterator[str]) -> Primitive[Any, Any]:
    match shape:
        case ("seq", parts):
            return Sequential(tuple(build(part, names) for part in parts))
        case ("par", parts):
            return Parallel(tuple(build(part, names) for part in parts))
        case ("retry", part, retries, on):
            return Retry(build(part, names), retries, on=on)
        case ("timeout", part, after):
            return Timeout(build(part, names), after)
        case kind:
            return leaf(next(names), kind)


KINDS = ["step", "undo", "undo", "doubt", "undo doubt", "pure"]


WRAPPERS = ["", "", "", "retry", "retry"]
ON: list[tuple[type[BaseException], ...]] = [(), (), (), (RuntimeError,), (TimeoutError,)]


def shape(draw: st.DrawFn, leaves: int, kinds: list[str], wrappers: list[str]) -> Any:
    """A tree with so many leaves. (`st.recursive` draws single steps most of the time.)"""
    if leaves == 1:
        inner: Any = draw(st.sampled_from(kinds))
    else:
        first = draw(st.integers(1, leaves - 1))
        sizes = [first, leaves - first]
        if sizes[1] > 1 and draw(st.booleans()):
            sizes[1:] = [1, sizes[1] - 1]
        parts = [shape(draw, size, kinds, wrappers) for size in sizes]
        inner = (draw(st.sampled_from(["seq", "seq", "par"])), parts)
    match draw(st.sampled_from(wrappers)):
        case "retry":
            return ("retry", inner, draw(st.integers(1, 2)), draw(st.sampled_from(ON)))
        case "timeout":
            return ("timeout", inner, draw(st.integers(1, 20)))
        case _:
            return inner


@st.composite
def sagas(draw: st.DrawFn, *, timeouts: bool = True, once: bool = True) -> Saga[Any, Any]:
    kinds = [*KINDS, "undo once"] if once else KINDS
    wrappers = [*WRAPPERS, "timeout"] if timeouts else WRAPPERS
    drawn = shape(draw, draw(st.sampled_from([1, *range(2, LEAVES + 1), 4, 5, 6])), kinds, wrappers)
    return Saga("law", 1, build(drawn, iter(NAMES)))


# ---------------------------------------------------------------------------- random worlds


@dataclass(frozen=True)
class World:
    """Answers depend on the place and the attempt only, as those of an idempotent service do."""

    forward: dict[str, list[str]]
    undo: dict[str, list[str]]
    takes: dict[str, int]

    def __call__(self, command: Command) -> Answer:
        name = name_of(command)
        if isinstance(command, RunCompensation):
            return OUTCOMES[_nth(self.undo, name, command.attempt)], timedelta(0)
        attempt = 1 if isinstance(command, Compute) else command.attempt
        outcome = OUTCOMES[_nth(self.forward, name, attempt + _repeats(command.path))]
        if isinstance(command, Compute):
            return (Failed(DECLINED) if isinstance(outcome, Failed) else Succeeded()), timedelta(0)
        return outcome, timedelta(seconds=self.takes.get(name, 0))


def _nth(script: dict[str, list[str]], name: str, attempt: int) -> str:
    listed = script.get(name, [])
    return listed[attempt - 1] if attempt <= len(listed) else "succeeds"


def _repeats(path: str) -> int:
    return sum(int(part.partition("@")[2] or 1) - 1 for part in path.split("/"))


def _script(words: list[str]) -> st.SearchStrategy[dict[str, list[str]]]:
    outcomes = st.lists(st.sampled_from(words), min_size=1, max_size=3)
    return st.fixed_dictionaries(dict.fromkeys(NAMES, outcomes))


durations = st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(0, 25)))
FORWARD = ["succeeds", "succeeds", "fails", *OUTCOMES]
BACKWARD = ["succeeds", "succeeds", "succeeds", *OUTCOMES]
worlds = st.builds(World, _script(FORWARD), _script(BACKWARD), durations)
cancels = st.one_of(st.none(), st.floats(0, 40))


def interrupted(saga: Saga[Any, Any], world: World, data: st.DataObject) -> Drive:
    """A run in the middle: what is planned has begun, and nothing of it has come back yet."""
    length = 0
    whole = drive(saga, world)
    while not whole.over:
        whole.turn()
        length += 1
    run = drive(saga, world)
    for _ in range(data.draw(st.integers(0, length - 1))):
        run.turn()
    run.work()
    return run


def drive(saga: Saga[Any, Any], world: World, cancel: float | None = None) -> Drive:
    made = Drive(saga, world)
    if cancel is not None:
        made.cancel_at = START + timedelta(seconds=cancel)
    return made


# ---------------------------------------------------------------------------- reading a history


def undoable(saga: Saga[Any, Any], history: list[Event]) -> list[str]:
    """The paths that must be undone if the saga goes back, oldest first, as plainly as can be."""
    places: dict[str, str] = {}
    for event in history:
        if isinstance(event, ev.StepSucceeded):
            places.pop(event.node, None)
            if saga.steps[event.step].undo_of_completed:
                places[event.node] = event.step
        elif isinstance(event, ev.StepInDoubt) and saga.steps[event.step].undo_attempted:
            places.setdefault(event.node, event.step)
    return list(places)


def undone(history: list[Event]) -> list[str]:
    return [event.node for event in history if isinstance(event, ev.StepCompensated)]


# ---------------------------------------------------------------------------- the laws


@lawful
@given(sagas(), worlds, cancels)
def test_a_run_always_ends_by_legal_events_and_the_terminal_one_is_last(
    saga: Saga[Any, Any], world: World, cancel: float | None
) -> None:
    run = drive(saga, world, cancel).run()
    assert run.state.status in ("completed", "compensated", "stuck")
    status = Status.PENDING
    for event in run.history:
        status = TRANSITIONS[status][type(event)]
    ends = (ev.SagaCompleted, ev.SagaCompensated, ev.SagaStuck)
    assert [i for i, e in enumerate(run.history) if isinstance(e, ends)] == [len(run.history) - 1]


@lawful
@given(sagas(), worlds, cancels, st.data())
def test_folding_a_prefix_and_then_the_rest_is_folding_all(
    saga: Saga[Any, Any], world: World, cancel: float | None, data: st.DataObject
) -> None:
    run = drive(saga, world, cancel).run()
    cut = data.draw(st.integers(0, len(run.history)))
    state = fold(SAGA_ID, run.history[:cut])
    for event in run.history[cut:]:
        evolve(state, event)
    assert state == fold(SAGA_ID, run.history) == run.state


@lawful
@given(sagas(), worlds, cancels)
def test_a_plan_after_a_crash_is_the_plan_without_one_and_never_waits_for_nothing(
    saga: Saga[Any, Any], world: World, cancel: float | None
) -> None:
    run = drive(saga, world, cancel)
    while not run.over:
        next_ = plan(saga, run.state, run.now)
        again = fold(SAGA_ID, run.history)
        assert again == run.state
        assert plan(saga, again, run.now) == next_
        assert next_.decisions or next_.commands or next_.wake_at is not None
        assert next_.wake_at is None or next_.wake_at > run.now
        run.turn()


@lawful
@given(sagas(), worlds, cancels)
def test_compensated_means_that_all_that_may_have_happened_was_undone_exactly_once(
    saga: Saga[Any, Any], world: World, cancel: float | None
) -> None:
    run = drive(saga, world, cancel).run()
    assume(run.state.status == "compensated")
    assert Counter(undone(run.history)) == Counter(undoable(saga, run.history))


@lawful
@given(sagas(), worlds, cancels)
def test_undo_is_in_reverse_order_of_completion(
    saga: Saga[Any, Any], world: World, cancel: float | None
) -> None:
    run = drive(saga, world, cancel).run()
    going_back = False
    for index, event in enumerate(run.history):
        going_back = going_back or isinstance(event, ev.CompensationStarted)
        if not isinstance(event, ev.StepCompensated):
            continue
        before = run.history[:index]
        open_ = [p for p in undoable(saga, before) if p not in undone(before)]
        if going_back:
            assert open_[-1] == event.node
        else:
            # A scope that failed: nothing younger is left below some place above this one.
            younger = open_[open_.index(event.node) + 1 :]
            assert any(
                not any(p.startswith(f"{scope}/") for p in younger) for scope in _above(event.node)
            )


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


@lawful
@given(sagas(), worlds)
def test_completed_means_that_only_scopes_that_ran_again_were_undone(
    saga: Saga[Any, Any], world: World
) -> None:
    run = drive(saga, world).run()
    assume(run.state.status == "completed")
    again = [e.node for e in run.history if isinstance(e, ev.RetryScheduled)]
    for path in undone(run.history):
        assert any(path.startswith(f"{node}/") for node in again)
    left = {p for p in undoable(saga, run.history) if p not in undone(run.history)}
    settled = {e.node for e in run.history if isinstance(e, ev.StepSucceeded)}
    assert left <= settled
    for event in run.history:
        if isinstance(event, ev.RetryScheduled) and "@" in event.target:
            former = _former(event)
            assert not any(path.startswith(f"{former}/") for path in left)


def _former(event: ev.RetryScheduled) -> str:
    """The path of the attempt before the one that was scheduled."""
    attempt = event.attempt - 1
    return f"{event.node}/0@{attempt}" if attempt > 1 else f"{event.node}/0"


@lawful
@given(sagas(), worlds, cancels)
def test_no_path_succeeds_twice_or_runs_after_it_was_undone(
    saga: Saga[Any, Any], world: World, cancel: float | None
) -> None:
    run = drive(saga, world, cancel).run()
    succeeded = Counter(e.node for e in run.history if isinstance(e, ev.StepSucceeded))
    assert all(count == 1 for count in succeeded.values())
    gone: set[str] = set()
    for event in run.history:
        if isinstance(event, ev.StepCompensated):
            gone.add(event.node)
        elif isinstance(event, ev.StepSucceeded | ev.StepFailed | ev.StepInDoubt):
            assert event.node not in gone


@lawful
@given(sagas(), worlds, cancels)
def test_no_forward_step_begins_after_the_saga_turned_round(
    saga: Saga[Any, Any], world: World, cancel: float | None
) -> None:
    run = drive(saga, world, cancel)
    while not run.over:
        begun, turned = len(run.begun), run.state.cancel is not None
        run.turn()
        if turned:
            assert not any(isinstance(c, RunStep) for c in run.begun[begun:])


@lawful
@given(sagas(timeouts=False), worlds, durations)
def test_any_order_in_which_outcomes_arrive_ends_in_the_same_status(
    saga: Saga[Any, Any], world: World, other: dict[str, int]
) -> None:
    one = drive(saga, world).run()
    two = drive(saga, World(world.forward, world.undo, other)).run()
    assert one.state.status == two.state.status
    assert one.state.result == two.state.result


@lawful
@given(sagas(timeouts=False, once=False), worlds, st.data())
def test_a_crash_at_any_moment_leads_to_the_same_end(
    saga: Saga[Any, Any], world: World, data: st.DataObject
) -> None:
    run = interrupted(saga, world, data)
    run.crash()
    run.run()
    whole = drive(saga, world).run()
    assert run.state.status == whole.state.status
    assert run.state.result == whole.state.result


@lawful
@given(sagas(), worlds, st.data(), st.integers(0, 30))
def test_what_ran_when_an_owner_died_is_suspected_by_the_next(
    saga: Saga[Any, Any], world: World, data: st.DataObject, away: int
) -> None:
    run = interrupted(saga, world, data)
    before = set(run.under_way)
    run.now += timedelta(seconds=away)
    run.crash()
    assert before <= set(run.under_way)


@lawful
@given(sagas(), worlds, st.data(), st.integers(0, 30))
def test_a_cancel_that_a_crash_came_before_undoes_all_that_may_have_happened(
    saga: Saga[Any, Any], world: World, data: st.DataObject, away: int
) -> None:
    run = interrupted(saga, world, data)
    assume(not run.over)
    run.now += timedelta(seconds=away)
    run.crash()
    run.cancel()
    run.run()
    assert run.state.status in ("compensated", "stuck")
    assume(run.state.status == "compensated")
    may_have_happened = {
        command.path
        for command in run.begun
        if isinstance(command, RunStep)
        and not isinstance(world(command)[0], Failed)
        and command.step.undo_of_completed
    }
    assert may_have_happened <= set(undone(run.history))


# ---------------------------------------------------------------------------- the model


class Stuck(Exception):  # noqa: N818 - a way out, not an error
    """A person is needed."""


@dataclass
class Model:
    """What a run without time must come to, told as plainly as can be, by recursion."""

    world: World
    left: dict[str, Step[Any, Any]] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    undone: list[str] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)

    def end_of(self, saga: Saga[Any, Any]) -> str:
        try:
            if self.run(saga.tree, saga.name) is None:
                return "completed"
            self.go_back(saga.name)
        except Stuck:
            return "stuck"
        return "compensated"

    def run(self, node: Primitive[Any, Any], path: str) -> Failure | None:
        """None when it succeeded, or why not."""
        match node:
            case Pure(name=name):
                return DECLINED if self._word(name, path) in ("fails", "is declined") else None
            case Step():
                return self._step(node, path)
            case Sequential(steps):
                failures = (self.run(part, f"{path}/{n}") for n, part in enumerate(steps))
                return next((failure for failure in failures if failure), None)
            case Parallel(branches):
                all_ = [self.run(part, f"{path}/{n}") for n, part in enumerate(branches)]
                return _together([failure for failure in all_ if failure])
            case Retry():
                return self._retry(node, path)
        raise TypeError(node)

    def _retry(self, node: Retry[Any, Any], path: str) -> Failure | None:
        scope, failure = is_composite(node.inner), None
        for attempt in range(1, node.max_retries + 2):
            below = f"{path}/0@{attempt}" if scope and attempt > 1 else f"{path}/0"
            failure = self.run(node.inner, below)
            if failure is None:
                return None
            if scope:
                self.go_back(below)
            kinds = {f"builtins.{kind.__name__}" for kind in node.on}
            matching = not kinds or any(kinds & set(f.kinds) for f in (failure, *failure.causes))
            if failure.permanent or not matching:
                break
        return failure

    def _step(self, node: Step[Any, Any], path: str) -> Failure | None:
        self.attempts[path] += 1
        match self._word(node.name, path, self.attempts[path]):
            case "succeeds":
                self.doubtful.discard(path)
                self.left[path] = node
                return None
            case "is in doubt":
                self.doubtful.add(path)
                self.left[path] = node
                return UNKNOWN
            case "is declined":
                return DECLINED
        return BROKEN

    def go_back(self, prefix: str) -> None:
        for path in [p for p in self.left if f"{p}/".startswith(f"{prefix}/")]:
            node = self.left.pop(path)
            undo = node.undo_attempted if path in self.doubtful else node.undo_of_completed
            if undo is None and path in self.doubtful and node.undo_completed is not None:
                raise Stuck
            if undo is not None:
                self._undo(node)
                self.undone.append(path)

    def _undo(self, node: Step[Any, Any]) -> None:
        for attempt in (1, 2, 3):
            word = _nth(self.world.undo, node.name, attempt)
            if word == "succeeds":
                return
            if word == "is declined":
                break
        raise Stuck

    def _word(self, name: str, path: str, attempt: int = 1) -> str:
        return _nth(self.world.forward, name, attempt + _repeats(path))


def _together(failures: list[Failure]) -> Failure | None:
    if len(failures) < 2:
        return failures[0] if failures else None
    leaves = [leaf for failure in failures for leaf in (failure.causes or (failure,))]
    permanent = any(failure.permanent for failure in failures)
    return Failure("group", "", (), permanent, None, tuple(leaves))


@lawful
@given(sagas(timeouts=False), worlds)
def test_every_run_comes_to_what_the_plain_model_says(saga: Saga[Any, Any], world: World) -> None:
    run = drive(saga, world).run()
    model = Model(world)
    assert run.state.status == model.end_of(saga)
    if run.state.status != "stuck":
        assert Counter(undone(run.history)) == Counter(model.undone)

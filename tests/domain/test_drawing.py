"""Pictures of a flow: which mark a place carries, which attempt is shown, which arrows are drawn."""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestrator import (
    Budget,
    Compensation,
    Completed,
    Fallback,
    Flow,
    Parallel,
    Primitive,
    Router,
    Saga,
    Scope,
    Signal,
    StepError,
    Timeout,
    WorkflowContext,
    each,
    flow,
    loop,
    pure,
    sleep,
    step,
    transactional,
    when,
)
from orchestrator.domain import events as ev
from orchestrator.domain.drawing import (
    DONE,
    DOUBT,
    FAILED,
    MOST,
    RUNNING,
    UNDONE,
    WAITING,
    outline,
    spelled,
)
from orchestrator.domain.events import Event, Json, Status
from orchestrator.domain.evolve import fold
from orchestrator.domain.forward import RULES
from orchestrator.domain.marks import leaves, mark_of, standing
from orchestrator.domain.node_state import NodeState
from orchestrator.domain.saga import walk
from orchestrator.domain.state import SagaState
from tests.histories.test_histories import RECORDED, SAGAS, history
from tests.parts import doubtable, kept, plain, probed, saga
from tests.spec import BROKEN, DECLINED, SAGA_ID, START, UNKNOWN, Drive, Given, begin, given

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.errors.DefinitionWarning")

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@step
async def hold(order: int, ctx: WorkflowContext) -> int:
    return order


@hold.compensation
async def release(done: Completed[int, int], ctx: WorkflowContext) -> None:
    """Nothing was held."""


@step
async def ship(order: int, ctx: WorkflowContext) -> int:
    return order


line = Saga("line", version=1, body=hold >> ship)
HOLD = "line/0"


def marks(*history: Event) -> dict[str, str]:
    state = fold(SAGA_ID, [begin(line), *history])
    return {each.label: each.mark for each in outline(line, state) if each.mark}


def test_an_outline_without_a_state_is_the_tree_with_nothing_begun() -> None:
    assert [(each.depth, each.label, each.path, each.mark) for each in outline(line)] == [
        (0, "one after the other", "line", ""),
        (1, "hold", "line/0", WAITING),
        (1, "ship", "line/1", WAITING),
    ]


@pytest.mark.parametrize(
    ("history", "mark"),
    [
        ([], WAITING),
        ([ev.StepStarted(HOLD, "hold", 1)], RUNNING),
        ([ev.StepSucceeded(HOLD, "hold", 1, Json("1"))], DONE),
        ([ev.StepFailed(HOLD, "hold", 1, BROKEN)], FAILED),
        ([ev.StepInDoubt(HOLD, "hold", 1, UNKNOWN)], DOUBT),
        (
            [
                ev.StepSucceeded(HOLD, "hold", 1, Json("1")),
                ev.CompensationStarted("broken", BROKEN),
                ev.StepCompensated(HOLD, "hold", 1),
            ],
            UNDONE,
        ),
    ],
    ids=["not begun", "running", "done", "failed", "in doubt", "undone"],
)
def test_a_leaf_carries_the_mark_of_how_far_it_has_come(history: list[Event], mark: str) -> None:
    assert marks(*history) == {"hold": mark, "ship": WAITING}


def test_a_step_that_is_to_run_again_is_running_going_forward_and_failed_going_back() -> None:
    again = Saga("again", version=1, body=hold.retry(3))
    leaf = "again/0"
    state = fold(
        SAGA_ID,
        [
            begin(again),
            ev.StepFailed(leaf, "hold", 1, BROKEN),
            ev.RetryScheduled("again", leaf, 2, NOW),
        ],
    )
    assert outline(again, state)[-1].mark == RUNNING
    state.status = Status.COMPENSATED
    assert outline(again, state)[-1].mark == FAILED


def test_of_a_scope_that_runs_again_the_attempt_that_began_last_is_shown() -> None:
    scope = Saga("scope", version=1, body=(hold >> ship).retry(3))
    history: list[Event] = [
        begin(scope),
        ev.StepSucceeded("scope/0/0", "hold", 1, Json("1")),
        ev.StepFailed("scope/0/1", "ship", 1, BROKEN),
        ev.RetryScheduled("scope", "scope/0@2", 2, NOW),
    ]
    assert [each.mark for each in outline(scope, fold(SAGA_ID, history))][2:] == [DONE, FAILED]
    history.append(ev.StepSucceeded("scope/0@2/0", "hold", 1, Json("1")))
    shown = outline(scope, fold(SAGA_ID, history))[2:]
    assert [(each.path, each.mark) for each in shown] == [
        ("scope/0@2/0", DONE),
        ("scope/0@2/1", WAITING),
    ]


# ---------------------------------------------------------------------------- every primitive


GO = Signal("go", Any)


def listed(value: Any) -> list[Any]:
    return [1, 2, 3]


@transactional
async def post(order: Any, ctx: WorkflowContext, db: asyncpg.Connection) -> Any:
    return order


@flow
async def careful(value: Any, f: Flow) -> Any:
    try:
        return await f.run(kept("one") >> plain("two"), value)
    except StepError:
        return await f.run(plain("other"), value)


INNER = saga(kept("i"), "inner")


@step(executor="process")
def crunch(order: Any, ctx: WorkflowContext) -> Any:
    return order


async def act_back(done: Any, ctx: WorkflowContext) -> None:
    """Nothing is left of it."""


EVERY: dict[str, tuple[Primitive[Any, Any], str]] = {
    "fallback": (
        Fallback(plain("a"), [plain("b")]),
        """
        the first that succeeds
          · a
          · b
        """,
    ),
    "router": (
        Router({"small": plain("a"), "big": plain("b")}, lambda v, ctx: "small"),
        """
        one of small, big
          · a
          · b
        """,
    ),
    "when": (
        when(lambda v: True, then=kept("a")),
        """
        one of then, otherwise
          · a (undo)
          nothing
        """,
    ),
    "each": (
        pure(listed) >> each(plain("a") >> plain("b"), concurrency=2),
        """
        one after the other
          · pure listed
          each, 2 at once
            one after the other
              · a
              · b
        """,
    ),
    "loop": (
        loop(plain("a"), until=lambda v: True, max_iterations=5, pause=3),
        """
        loop, at most 5 times
          · a
        """,
    ),
    "sleep and wait": (
        sleep(60) >> GO.wait(within=5) >> Signal("late", Any).wait(),
        """
        one after the other
          · sleep 60 s
          · wait for go (within 5 s)
          · wait for late
        """,
    ),
    "child": (INNER.child(), "· saga inner"),
    "flow": (careful, "· flow careful"),
    "transactional": (post, "· post (transactional)"),
    "scope": (
        Scope(kept("a") >> plain("b"), "pay"),
        """
        scope pay
          one after the other
            · a (undo)
            · b
        """,
    ),
    "pairs": (
        Compensation(((plain("a"), act_back), (plain("b"), None))),
        """
        scope
          one after the other
            · a (undo)
            · b
        """,
    ),
    "pivot": (
        kept("a") >> plain("b").pivot(),
        """
        one after the other
          · a (undo)
          pivot
            · b
        """,
    ),
    "guards": (
        Budget(plain("a").cache(60).rate_limit("r", 5, 1).circuit("c"), 2.5, "pot"),
        """
        budget pot of 2.5
          circuit c
            at most 5 in 1 s
              cached for 60 s
                · a
        """,
    ),
    "time-outs and retries": (
        Timeout(plain("a", timeout=5, retries=2) >> plain("b"), 60),
        """
        within 60 s
          one after the other
            retry up to 2 times
              within 5 s
                · a
            · b
        """,
    ),
    "data flow": (
        plain("a").map(listed).keep() >> plain("b").using(lambda v: v.input),
        """
        one after the other
          keep
            one after the other
              · a
              · pure listed
          using
            · b
        """,
    ),
    "words of steps": (
        plain("a", once=True).without_undo("free") >> probed("b") >> doubtable("c") >> crunch,
        """
        one after the other
          · a (once, no undo: free)
          · b (undo, probe)
          · c (undo on doubt)
          · crunch (in a process of its own)
        """,
    ),
    "parallel": (
        Parallel((plain("a"), plain("b")), limit=1, on_failure="cancel", undo="parallel"),
        """
        side by side (limit=1, on_failure='cancel', undo='parallel')
          · a
          · b
        """,
    ),
}


def drawn(saga: Saga[Any, Any], state: SagaState | None = None) -> str:
    """The outline as a person reads it, a line for each place."""
    lines = []
    for one in outline(saga, state):
        notes = f"({', '.join(one.notes)})" if one.notes else ""
        text = " ".join(filter(None, [one.mark, one.label, notes]))
        lines.append("  " * one.depth + text)
    return "\n".join(lines)


def below(text: str) -> str:
    return textwrap.dedent(text).strip()


@pytest.mark.parametrize(("body", "lines"), EVERY.values(), ids=EVERY)
def test_every_primitive_is_drawn_before_it_runs(body: Primitive[Any, Any], lines: str) -> None:
    assert drawn(saga(body)) == below(lines)


def test_no_primitive_is_left_out_of_these_tests() -> None:
    shown = {type(node) for body, _ in EVERY.values() for node in walk(saga(body).tree)}
    assert shown == set(RULES)


# ---------------------------------------------------------------------------- running and ended


def came_to(run: Given) -> str:
    return drawn(run.run.saga, run.drive.state)


def so_far(run: Given, holds: Callable[[Drive], bool]) -> str:
    run.run.run_until(lambda: holds(run.run))
    return drawn(run.run.saga, run.run.state)


def has(kind: type[Event]) -> Callable[[Drive], bool]:
    return lambda drive: any(isinstance(event, kind) for event in drive.history)


def test_a_router_says_which_route_it_took() -> None:
    run = given(saga(Router({"low": plain("a"), "high": plain("b")}, lambda v, ctx: "high")))
    assert came_to(run) == below("""
        one of low, high: high
          · a
          ✓ b
    """)


def test_a_choice_that_failed_is_marked_where_it_was_made() -> None:
    run = given(saga(kept("a") >> when(lambda v: v["no such"], then=plain("b"))))
    assert came_to(run).splitlines()[1:3] == ["  ↩ a (undo)", "  ✗ one of then, otherwise"]


def test_a_fallback_says_how_far_down_its_list_it_is() -> None:
    run = given(saga(Fallback(plain("a"), [plain("b"), plain("c")])))
    assert came_to(run.when_step_fails("a")) == below("""
        the first that succeeds: alternative 1
          ✗ a
          ✓ b
          · c
    """)


def test_a_step_that_is_tried_again_says_which_attempt_it_is_at() -> None:
    run = given(saga(plain("a").retry(3))).when_step_fails("a", times=2)
    assert came_to(run) == "retry up to 3 times: attempt 3\n  ✓ a"


def test_a_time_out_says_that_it_was_one() -> None:
    assert came_to(given(saga(Timeout(GO.wait() >> plain("a"), 60)))) == below("""
        within 60 s: took too long
          one after the other
            ⊘ wait for go
            · a
    """)


def test_a_step_that_a_policy_holds_back_is_no_step_that_was_not_begun() -> None:
    run = given(saga(plain("a").circuit("c"))).when_step_is_held("a", by="circuit c", until=60)
    assert so_far(run, has(ev.StepHeld)) == "circuit c\n  … a: held back"
    assert came_to(run) == "circuit c\n  ✓ a"


def test_a_budget_says_what_is_spent() -> None:
    run = given(saga(Budget(plain("a") >> plain("b"), limit=3))).when_step_costs("a", 3.5)
    assert came_to(run) == below("""
        budget of 3: 3.5 spent
          one after the other
            ✓ a
            ✗ b
    """)


def test_what_waits_is_running_and_what_was_broken_off_is_told_from_it() -> None:
    run = given(saga(kept("a") >> (GO.wait() | sleep(600))))
    waiting = so_far(run, lambda drive: bool(drive.state.waiters) and has(ev.TimerSet)(drive))
    assert waiting.splitlines()[-2:] == ["    … wait for go", "    … sleep 600 s"]
    run.run.cancel()
    assert came_to(run) == below("""
        one after the other
          ↩ a (undo)
          side by side
            ⊘ wait for go
            ⊘ sleep 600 s
    """)


def test_what_ran_when_somebody_ended_the_instance_is_in_doubt() -> None:
    state = fold(SAGA_ID, [begin(line), ev.StepStarted(HOLD, "hold", 1)])
    assert "… hold" in drawn(line, state)
    fold_on = ev.SagaTerminated("ann", "enough", 1)
    state = fold(SAGA_ID, [begin(line), ev.StepStarted(HOLD, "hold", 1), fold_on])
    assert "? hold" in drawn(line, state)


def test_a_stuck_instance_shows_what_it_waited_for_and_what_cannot_be_undone() -> None:
    run = given(saga(kept("a") >> kept("b") >> plain("c"))).when_step_fails("c")
    run.when_undo_fails("b", failure=DECLINED).ends("stuck")
    assert came_to(run) == below("""
        one after the other
          ✓ a (undo)
          ✗ b: undo failed once (undo)
          ✗ c
    """)
    assert came_to(run.repaired("skip", reason="by hand", step="b")).splitlines()[1:3] == [
        "  ↩ a (undo)",
        "  ↩ b (undo)",
    ]


def test_an_undo_that_is_tried_again_is_running() -> None:
    run = given(saga(kept("a") >> plain("b"))).when_step_fails("b").when_undo_fails("a", times=2)
    text = so_far(run, has(ev.CompensationRetryScheduled))
    assert text.splitlines()[1] == "  … a: undo failed once (undo)"
    assert came_to(run).splitlines()[1] == "  ↩ a (undo)"


def test_a_step_that_turned_out_not_to_have_happened_failed() -> None:
    run = given(saga(probed("a") >> plain("b"))).when_step_is_in_doubt("a")
    assert came_to(run.when_probe_answers("a", "not_happened")).splitlines()[1].startswith("  ✗ a")


def test_a_child_is_named_by_its_id_with_how_it_ended() -> None:
    run = given(saga(INNER.child() >> plain("b"))).when_step_fails("b")
    [child] = run.drive.kids
    assert came_to(run).splitlines()[1] == f"  ↩ saga inner: {child} completed"
    failed = given(saga(INNER.child())).when_child_ends("inner", "compensated")
    assert came_to(failed).startswith("✗ saga inner: ")
    running = given(saga(INNER.child())).when_child_ends("inner", "completed", takes=60)
    assert so_far(running, has(ev.ChildStarted)).startswith("… saga inner: ")


def test_after_the_pivot_its_steps_stay_done() -> None:
    run = given(saga(kept("a") >> plain("b").pivot() >> plain("c").retry(1)))
    assert came_to(run.when_step_fails("c", failure=DECLINED)) == below("""
        one after the other
          ✓ a (undo)
          pivot
            ✓ b
          retry up to 1 times
            ✗ c
    """)


# ---------------------------------------------------------------------------- the requests of a flow


def test_a_flow_shows_what_it_asked_for_with_the_steps_of_each_request() -> None:
    run = given(saga(plain("x") >> careful >> plain("y"))).when_step_fails("two")
    assert came_to(run) == below("""
        one after the other
          ✓ x
          ✓ flow careful: 2 requests
            ✗ sequential (step one, step two)
              ↩ one
              ✗ two
            ✓ step other
          ✓ y
    """)


def test_a_flow_that_was_taken_back_is_undone_with_all_that_it_asked_for() -> None:
    run = given(saga(careful >> plain("y"))).when_step_fails("y").ends("compensated")
    assert came_to(run).splitlines()[1:] == [
        "  ↩ flow careful: 1 request",
        "    ↩ sequential (step one, step two)",
        "      ↩ one",
        "      ✓ two",
        "  ✗ y",
    ]


def test_a_flow_that_waits_is_running_at_what_it_asked_for_last() -> None:
    @flow
    async def code(value: Any, f: Flow) -> Any:
        await f.run(plain("a"), value)
        return await f.receive(GO)

    run = given(saga(code))
    assert so_far(run, has(ev.WaitStarted)) == below("""
        … flow code: 2 requests
          ✓ step a
          … wait go
    """)


def test_of_a_long_flow_the_last_requests_and_those_in_trouble_are_shown() -> None:
    @flow
    async def long(value: Any, f: Flow) -> Any:
        for n in range(100):
            with contextlib.suppress(StepError):
                await f.run(plain("bad" if n == 7 else "good"), value)

    run = given(saga(long)).when_step_fails("bad")
    lines = came_to(run).splitlines()
    assert lines[:3] == ["✓ flow long: 100 requests", "  90 earlier requests", "  ✗ step bad"]
    assert lines[3:] == ["  ✓ step good"] * 9


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("Step:Pay", "step Pay"),
        ("Sleep", "sleep"),
        ("Wait:verdict", "wait verdict"),
        ("Retry(Sequential(Step:a,Child:pay/1))", "retry (sequential (step a, child pay/1))"),
    ],
)
def test_a_request_is_read_as_words(request_: str, words: str) -> None:
    assert spelled(request_) == words


# ---------------------------------------------------------------------------- lists and loops


def many(count: int, *fates: Event, bound: int = 5) -> tuple[Saga[Any, Any], SagaState]:
    """A list of so many items, each two steps, with what happened to some of them."""
    bulk = saga(pure(listed) >> each(kept("a") >> plain("b"), concurrency=bound))
    items = Json(json.dumps(list(range(count))))
    history: list[Event] = [
        begin(bulk),
        ev.ValueComputed("s/0", "listed", items),
        ev.EachStarted("s/1", items, count, bound),
        *fates,
    ]
    return bulk, fold(SAGA_ID, history)


def done(item: int) -> list[Event]:
    return [
        ev.StepSucceeded(f"s/1/{item}/0", "a", 1, Json("1")),
        ev.StepSucceeded(f"s/1/{item}/1", "b", 1, Json("1")),
        ev.ItemSucceeded("s/1", item, Json("1")),
    ]


def test_of_ten_thousand_items_those_in_trouble_are_shown_and_the_others_counted() -> None:
    fates: list[Event] = []
    for item in range(9_000):
        if item % 300 == 7:
            fates += [ev.StepInDoubt(f"s/1/{item}/0", "a", 1, UNKNOWN)]
        elif item % 300 == 9:
            fates += [
                ev.StepFailed(f"s/1/{item}/0", "a", 1, BROKEN),
                ev.ItemFailed("s/1", item, BROKEN),
            ]
        else:
            fates += done(item)
    lines = drawn(*many(10_000, *fates, bound=1_000)).splitlines()
    assert lines[2] == ("  each, 1000 at once: 8,940 of 10,000 done, 30 failed, 30 in doubt")
    assert lines[3:7] == [
        "    ? item 7",
        "      one after the other",
        "        ? a (undo)",
        "        · b",
    ]
    assert len([each for each in lines if "? item" in each]) == MOST
    assert lines[-1] == "    and 50 more items failed or in doubt"
    assert len(lines) < 50


def test_without_trouble_one_item_shows_what_is_done_to_each() -> None:
    running = [*done(0), ev.StepStarted("s/1/1/0", "a", 1)]
    assert drawn(*many(3, *running)).splitlines()[2:5] == [
        "  each, 5 at once: 1 of 3 done, 2 running",
        "    … item 1",
        "      one after the other",
    ]
    assert drawn(*many(1, *done(0))).splitlines()[2:4] == [
        "  each, 5 at once: 1 of 1 done",
        "    ✓ item 0",
    ]
    assert drawn(*many(0)).splitlines()[2:4] == [
        "  each, 5 at once: 0 of 0 done",
        "    one after the other",
    ]


def test_items_that_are_one_step_take_one_line_each() -> None:
    run = given(saga(pure(listed) >> each(plain("a"), concurrency=1)))
    run.when_step_gives("listed", "[1,2,3]").when_step_succeeds("a").when_step_fails("a")
    assert came_to(run).splitlines()[2:] == [
        "  each, 1 at once: 1 of 3 done, 1 failed",
        "    ✗ item 1: a",
    ]


def test_items_that_were_undone_are_counted() -> None:
    run = given(saga(pure(listed) >> each(kept("a")) >> plain("b"))).when_step_fails("b")
    assert came_to(run.when_step_gives("listed", "[1,2,3]")).splitlines()[2:4] == [
        "  each, 10 at once: 3 of 3 done, 3 undone",
        "    ↩ item 0: a (undo)",
    ]


def test_lists_within_lists_stay_short_too() -> None:
    body = pure(listed) >> each(pure(listed) >> each(plain("a"), concurrency=100), concurrency=100)
    items = json.dumps(list(range(20)))
    run = given(saga(body)).when_step_gives("listed", items).when_step_fails("a", times=400)
    assert came_to(run).splitlines()[2] == "  each, 100 at once: 0 of 20 done, 20 failed"
    assert len(outline(run.run.saga, run.drive.state)) < 8 * MOST


def poll(turns: int, **more: Any) -> Saga[Any, Any]:
    body = loop(kept("a"), until=lambda v: False, max_iterations=turns, **more)
    return saga(body >> plain("b"))


def test_of_a_loop_the_iteration_that_began_last_is_shown() -> None:
    run = given(poll(48, pause=60)).when_step_succeeds("a", times=2).when_step_fails("a", times=1)
    assert so_far(run, has(ev.StepFailed)).splitlines()[1:3] == [
        "  loop, at most 48 times: iteration 3",
        "    ✗ a (undo)",
    ]
    assert outline(run.run.saga, run.run.state)[2].path == "s/0/0#3"


def test_of_ten_thousand_iterations_those_that_cannot_be_undone_are_shown_too() -> None:
    turns = 10_000
    again = poll(turns)
    history: list[Event] = [begin(again)]
    for turn in range(1, turns + 1):
        path = "s/0/0" if turn == 1 else f"s/0/0#{turn}"
        history += [
            ev.StepSucceeded(path, "a", 1, Json("1")),
            ev.ConditionEvaluated("s/0", turn, holds=False),
        ]
        if turn < turns:
            history += [ev.IterationScheduled("s/0", turn + 1, START, Json("1"))]
    history += [
        ev.CompensationStarted("broken", BROKEN),
        ev.StepCompensated(f"s/0/0#{turns}", "a", 1),
        ev.CompensationFailed("s/0/0#9999", "a", 1, DECLINED),
        ev.SagaStuck("s/0/0#9999", "a", "declined"),
    ]
    assert drawn(again, fold(SAGA_ID, history)).splitlines()[1:] == [
        "  loop, at most 10000 times: iteration 10000",
        "    ✗ iteration 9999: a: undo failed once (undo)",
        "    ↩ iteration 10000: a (undo)",
        "  · b",
    ]


# ---------------------------------------------------------------------------- recorded histories


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_step_of_a_recorded_history_is_drawn_where_it_stands(path: Path) -> None:
    """Before each of its events, and at its end."""
    _, events = history(path)
    recorded = [event for event, _ in events]
    for length in range(1, len(recorded) + 1):
        state = fold(SAGA_ID, recorded[:length])
        lines = outline(SAGAS[path.stem], state)
        shown = {each.path: each.mark for each in lines}
        hidden = counted(state.root, SAGAS[path.stem].name)
        for where, known in leaves(state.root, SAGAS[path.stem].name):
            assert where in shown or any(where.startswith(each) for each in hidden), where
            assert (
                shown.get(where, mark_of(known, standing(state))) != WAITING or not known.attempts
            )


def counted(known: NodeState, path: str) -> list[str]:
    """The places whose parts are counted, and not all drawn."""
    here = [f"{path}/"] if known.fan_out is not None or known.iteration > 1 else []
    return [
        *here,
        *(p for s, part in known.children.items() for p in counted(part, f"{path}/{s}")),
    ]

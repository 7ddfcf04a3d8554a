"""Steps: how they are declared, and how it is declared how they are taken back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import Primitive
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import (
    Attempted,
    Completed,
    Happened,
    NotHappened,
    Step,
    Unknown,
    step,
    transactional,
)
from orchestrator.domain.wrappers import Retry
from orchestrator.errors import DefinitionError

NAN, INF = float("nan"), float("inf")


class Db:
    """What a transactional step may ask for."""


async def act(value: int, ctx: WorkflowContext) -> int:
    return value


def crunch(value: int, ctx: WorkflowContext) -> int:
    return value


async def write(value: int, ctx: WorkflowContext, db: Db) -> int:
    return value


async def release(done: Completed[int, int], ctx: WorkflowContext) -> None: ...


async def release_any(done: Any, ctx: Any) -> None: ...


async def release_bare(done: Completed, ctx: WorkflowContext) -> None: ...  # type: ignore[type-arg]  # as people write it


async def release_text(done: Completed[str, int], ctx: WorkflowContext) -> None: ...


async def release_of_text(done: Completed[int, str], ctx: WorkflowContext) -> None: ...


async def release_in_db(done: Completed[int, int], ctx: WorkflowContext, db: Db) -> None: ...


async def release_in_what(done: Completed[int, int], ctx: WorkflowContext, db) -> None: ...  # type: ignore[no-untyped-def]  # what is refused


async def release_twice(done: Completed[int, int], ctx: WorkflowContext, n: int = 2) -> None: ...


async def settle(tried: Attempted[int, int], ctx: WorkflowContext) -> None: ...


async def settle_text(tried: Attempted[int, str], ctx: WorkflowContext) -> None: ...


async def ask(
    tried: Attempted[int, int], ctx: WorkflowContext
) -> Happened[int] | NotHappened | Unknown:
    return Unknown()


async def ask_badly(tried: Attempted[int, int], ctx: WorkflowContext) -> bool:
    return True


async def ask_of_done(done: Completed[int, int], ctx: WorkflowContext) -> Unknown:
    return Unknown()


async def lonely(value: int) -> int:
    return value


async def greedy(value: int, ctx: Any, more: int) -> int:
    return value


async def picky(value: int, ctx: Any, *, how: str) -> int:
    return value


def yields(value: int, ctx: Any) -> Iterator[int]:
    yield value


async def yields_later(value: int, ctx: Any) -> AsyncIterator[int]:
    yield value


class Object:
    async def __call__(self, value: int, ctx: WorkflowContext) -> int:
        return value


def fresh(name: str = "fresh", **options: Any) -> Any:
    return step(name=name, **options)(act)


_step: Any = step
_transactional: Any = transactional
_pairs: Any = Compensation


def refused(match: str) -> Any:
    return pytest.raises(DefinitionError, match=match)


# ---------------------------------------------------------------------------- what a step is


def test_a_step_has_the_name_and_the_types_of_its_function() -> None:
    made = step(act)
    assert (made.name, made.label, repr(made)) == ("act", "act", "act")
    assert (made.input_type, made.output_type) == (int, int)
    assert (made.retries, made.limit, made.unbounded) == (0, None, False)


def test_a_step_keeps_its_options() -> None:
    made = fresh("other", retries=2, timeout=timedelta(minutes=1), doubt_on=(OSError,))
    assert (made.name, made.retries, made.limit) == ("other", 2, timedelta(minutes=1))
    assert made.doubt_on == (OSError,)
    assert fresh(doubt_on=()).doubt_on == ()
    assert fresh(once=True).once
    assert fresh(timeout=None).unbounded


def test_a_function_without_a_name_of_its_own_can_be_given_one() -> None:
    partial, made = functools.partial(act), step(name="object")(Object())
    assert step(name="partial")(partial).name == "partial"
    assert (made.name, made.input_type) == ("object", Any)


def test_a_plain_function_of_a_module_can_run_in_a_process() -> None:
    assert step(executor="process")(crunch).executor == "process"
    assert step(executor="thread")(crunch).executor == ""


def test_a_transactional_step_says_what_it_gets() -> None:
    assert transactional(write).transaction is Db
    made = transactional(name="w", retries=2, timeout=5)(write)
    assert (made.name, made.retries, made.limit) == ("w", 2, timedelta(seconds=5))


async def write_by_driver(value: int, ctx: WorkflowContext, db: Db[str]) -> list[int]:  # type: ignore[type-arg]  # as asyncpg's Connection, which is generic for checkers only
    return [value]


def test_a_database_that_is_generic_for_checkers_only_is_known_all_the_same() -> None:
    made = transactional(write_by_driver)
    assert (made.transaction, made.input_type, made.output_type) == (Db, int, list[int])


def local(value: int, ctx: WorkflowContext) -> int:
    return value


local.__qualname__ = "outer.<locals>.local"


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: _step(lambda x, ctx: x), "a lambda cannot be told apart"),
        (lambda: _step(7), "7 cannot be a step; make one of a function"),
        (lambda: _step(step(act)), "act cannot be a step"),
        (lambda: _step(int), "cannot be a step"),
        (lambda: _step(functools.partial(act)), r'has no name; give it one: @step\(name='),
        (lambda: _step(lonely), r"'lonely' takes \(value\), but it is called with \(input, ctx\)"),
        (lambda: _step(greedy), r"database is @transactional\) takes \(value, ctx, more\)"),
        (lambda: _step(picky), r"takes \(value, ctx, how\), but it is called with"),
        (lambda: _step(yields), "step 'yields' yields; .* return that"),
        (lambda: _step(yields_later), "step 'yields_later' yields"),
        (lambda: fresh("a b"), "step name 'a b': use 1 to 100 letters"),
        (lambda: fresh(""), "step name ''"),
        (lambda: fresh("x" * 101), "use 1 to 100"),
        (lambda: fresh("no/slash"), "step name 'no/slash'"),
        (lambda: fresh("-dash"), "the first a letter, a digit or '_'"),
        (lambda: fresh(".."), "step name '..'"),
        (lambda: fresh("läuft"), "step name 'läuft'"),
        (lambda: fresh(7), "step name 7"),
        (lambda: fresh(True), "step name True"),
        (lambda: step(act).named("<lambda>"), "step name '<lambda>'"),
        (lambda: step(act).named(None), "step name None"),
        (lambda: fresh(retries=-1), "step 'fresh': retries is -1; give a whole number from 0"),
        (lambda: fresh(retries=True), "retries is True"),
        (lambda: fresh(retries=1.5), "retries is 1.5"),
        (lambda: fresh(retries=10**30), "retries is 10000"),
        (lambda: fresh(once=True, retries=1), "contradict each other; take one away"),
        (lambda: fresh(doubt_on=OSError), r"doubt_on is one class; write a tuple: \(OSError,\)"),
        (lambda: fresh(doubt_on=(7,)), r"doubt_on is \(7,\); give a tuple of exception classes"),
        (lambda: fresh(executor="thread"), "is async, so it runs on the event loop"),
        (lambda: fresh(executor="process"), "is async, so it runs on the event loop"),
        (lambda: _step(executor="gpu")(crunch), 'executor is \'gpu\'; say "thread" or "process"'),
        (lambda: _step(executor="process")(local), "stands at the top level of a module"),
        (lambda: _step(executor="process", name="p")(functools.partial(crunch)), "top level"),
        (lambda: _step(executor="process", name="p")(lambda v, ctx: v), "top level"),
        (lambda: _transactional(act), r"'act' takes \(value, ctx\), .* \(input, ctx, db\)"),
        (lambda: _transactional(crunch), "crunch is @transactional, so it must be an async"),
        (lambda: _transactional(lambda v, ctx, db: v), "must be an async function"),
        (lambda: _transactional(release_in_what), "annotate it as AsyncSession"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_step_is_refused(build: Any, match: str) -> None:
    with refused(match):
        build()


@pytest.mark.parametrize(
    "bad", [0, 0.0, -1, -1.0, -0.5, 1e-9, NAN, INF, -INF, 1e30, 10**400, True, False, "5", (1,)]
)
def test_a_time_out_that_is_no_time_is_refused(bad: Any) -> None:
    made = fresh()
    builds: list[Any] = [
        lambda: fresh(timeout=bad),
        lambda: transactional(timeout=bad)(write),
        lambda: made.compensation(timeout=bad)(release),
        lambda: made.compensation_on_doubt(timeout=bad)(settle),
        lambda: made.probe(timeout=bad)(ask),
    ]
    for build in builds:
        with refused(r"fresh|write") as caught:
            build()
        assert "timeout" in str(caught.value)
        assert "give" in str(caught.value)


@pytest.mark.parametrize("bad", [timedelta(0), timedelta(seconds=-1), timedelta.max])
def test_a_timedelta_out_of_bounds_is_refused_too(bad: timedelta) -> None:
    with refused("give more than 0 seconds, at most 36,500 days"):
        fresh(timeout=bad)


def test_once_is_no_option_of_a_transactional_step() -> None:
    with pytest.raises(TypeError, match="once"):
        _transactional(once=True)
    assert "once" not in inspect.signature(transactional).parameters


def test_an_unknown_annotation_is_refused_with_a_hint() -> None:
    async def odd(order: Nowhere, ctx: Any) -> int:  # type: ignore[name-defined]  # noqa: F821 - meant
        return 1

    async def undo(done: Nowhere, ctx: Any) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - meant

    with refused("define its models at module level"):
        step(odd)
    with refused("define its models at module level"):
        fresh().compensation(undo)


# ---------------------------------------------------------------------------- taken back


def test_a_compensation_completes_its_step_in_place_and_gives_the_function_back() -> None:
    made = fresh()
    assert made.compensation(release) is release
    assert made.undo_completed.action is release
    assert made.undo_of_completed is made.undo_completed


def test_a_compensation_with_options_keeps_them() -> None:
    made = fresh()
    made.compensation_on_doubt(retries=4, timeout=7)(settle)
    assert made.undo_attempted.timeout == timedelta(seconds=7)
    assert made.undo_attempted.policy.max_retries == 4
    assert made.undo_of_completed is made.undo_attempted


def test_a_probe_with_options_keeps_them() -> None:
    made = fresh()
    assert made.probe(retries=0, timeout=7)(ask) is ask
    assert (made.asks.retries, made.asks.timeout) == (0, timedelta(seconds=7))


@pytest.mark.parametrize("undo", [release, release_any, release_bare, release_twice, crunch])
def test_functions_that_can_be_called_with_the_outcome_are_taken(undo: Any) -> None:
    made = step(name="any")(lambda v, ctx: v) if undo is crunch else fresh()
    undo = release_any if undo is crunch else undo
    made.compensation(undo)
    assert (made.undo_completed.action, made.undo_completed.transaction) == (undo, None)


def test_an_undo_may_take_the_database() -> None:
    made = fresh()
    made.compensation(release_in_db)
    assert made.undo_completed.transaction is Db


def test_each_is_declared_once() -> None:
    made = fresh()
    made.compensation(release)
    with refused("'fresh' has this compensation already; declare it once"):
        made.compensation(release)
    made.compensation_on_doubt(settle)
    with refused("'fresh' has this compensation on doubt already"):
        made.compensation_on_doubt(settle)
    made.probe(ask)
    with refused("'fresh' has this probe already"):
        made.probe(ask)


def test_nothing_is_declared_after_the_saga_was_built() -> None:
    made = fresh()
    Saga("s", 1, Retry(made))
    for declare, fn in (
        (made.compensation, release),
        (made.compensation_on_doubt, settle),
        (made.probe, ask),
    ):
        with refused("'fresh' is already part of a saga; declare its .* before the Saga"):
            declare(fn)


@pytest.mark.parametrize(
    ("declare", "match"),
    [
        (lambda a: a.compensation(fresh("b")), r"b cannot undo .* fresh\.undo_with\(step, bind\)"),
        (lambda a: a.undo(fresh("b")), "b cannot undo anything"),
        (lambda a: a.compensation(7), "7 cannot undo anything"),
        (lambda a: a.compensation(int), "cannot undo anything"),
        (lambda a: a.compensation(yields), "cannot undo anything"),
        (lambda a: a.compensation(lonely), r"compensation of 'fresh' takes \(value\), .*done, ctx"),
        (lambda a: a.compensation(settle), r"takes Attempted.*called with Completed\[int, int\]"),
        (lambda a: a.compensation(act), r"compensation of 'fresh' takes int, but .* Completed"),
        (lambda a: a.compensation(release_text), r"called with Completed\[int, int\]"),
        (lambda a: a.compensation(release_of_text), r"called with Completed\[int, int\]"),
        (lambda a: a.undo(release_text), r"called with Completed\[int, int\]; let it take that"),
        (lambda a: a.compensation(release_in_what), "annotate it as AsyncSession"),
        (lambda a: a.compensation(retries=-1)(release), "retries is -1"),
        (lambda a: a.compensation(retries=True)(release), "retries is True"),
        (lambda a: a.compensation_on_doubt(release), r"called with Attempted\[int, int\]"),
        (lambda a: a.compensation_on_doubt(settle_text), r"called with Attempted\[int, int\]"),
        (lambda a: a.probe(7), r"7 cannot be a probe; give a function \(tried, ctx\)"),
        (lambda a: a.probe(fresh("b")), "b cannot be a probe"),
        (lambda a: a.probe(ask_badly), r"gives bool; it gives Happened\(output\), NotHappened"),
        (lambda a: a.probe(lonely), r"probe of 'fresh' takes \(value\)"),
        (lambda a: a.probe(ask_of_done), r"takes Completed\[int, int\], .* with Attempted"),
        (lambda a: a.probe(retries=-1)(ask), "probe of 'fresh': retries is -1"),
        (lambda a: a.probe(retries=2.5)(ask), "probe of 'fresh': retries is 2.5"),
        (lambda a: a.undo_with(release, lambda d: 1), r"undo_with\(\) takes a step; .* is none"),
        (lambda a: a.undo_with(fresh("b"), 7), "bind is 7; give a plain function"),
        (lambda a: a.undo_with(fresh("b"), release), "is async or a generator"),
        (lambda a: a.undo_with(fresh("b"), lambda: 1), r"called with \(done\)"),
        (lambda a: a.undo_with(fresh("b"), as_text), "gives str, but int is needed"),
        (lambda a: a.undo_with(step(executor="process")(crunch), as_int), "let it be a plain"),
        (lambda a: a.without_undo(" "), r"fresh.without_undo\(\) needs a reason"),
        (lambda a: a.without_undo(None), "needs a reason"),
        (lambda a: a.undo(release).without_undo("x"), "it has a compensation; take one"),
        (lambda a: a.without_undo("free").compensation(release), r"needs no undo \(free\)"),
    ],
)  # fmt: skip
def test_a_mistake_in_taking_back_is_refused_and_changes_nothing(declare: Any, match: str) -> None:
    made = fresh()
    with refused(match):
        declare(made)
    assert (made.undo_completed, made.undo_attempted, made.asks) == (None, None, None)


def as_text(done: Completed[int, int]) -> str:
    return ""


def as_int(done: Completed[int, int]) -> int:
    return done.output * 10


def test_copies_can_be_declared_anew_and_leave_the_original_alone() -> None:
    made = fresh()
    Saga("s", 1, made)
    other = made.named("other")
    other.compensation(release)
    assert (made.undo_completed, other.name) == (None, "other")
    assert made.undo(release).undo_completed.action is release
    assert made.without_undo("it costs nothing").no_undo_reason == "it costs nothing"
    assert made.without_undo("it costs nothing").undo(release).no_undo_reason is None


DONE = Completed(1, 2, "key")
CTX = WorkflowContext()


async def test_a_step_that_undoes_another_gets_what_bind_makes_of_its_outcome() -> None:
    seen: list[Any] = []

    async def refund(value: int, ctx: WorkflowContext) -> int:
        seen.append((value, ctx))
        return value

    other = step(timeout=9)(refund)
    undo = fresh().undo_with(other, as_int).undo_completed
    await undo.action(DONE, CTX)
    assert seen == [(20, CTX)]
    assert undo.timeout == timedelta(seconds=9)


async def test_a_transactional_step_that_undoes_another_gets_its_database() -> None:
    seen: list[Any] = []

    async def erase(value: int, ctx: WorkflowContext, db: Db) -> int:
        seen.append(db)
        return value

    undo = fresh().undo_with(transactional(erase), as_int).undo_completed
    assert undo.transaction is Db
    db = Db()
    await undo.action(DONE, CTX, db)
    assert seen == [db]


def test_a_plain_step_that_undoes_another_stays_plain_so_that_it_runs_in_a_thread() -> None:
    seen: list[int] = []

    def refund(value: int, ctx: WorkflowContext) -> int:
        seen.append(value)
        return value

    undo = fresh().undo_with(step(refund), as_int).undo_completed
    assert not inspect.iscoroutinefunction(undo.action)
    undo.action(DONE, CTX)
    assert seen == [20]


# ---------------------------------------------------------------------------- pairs


def test_pairs_build_the_chain_of_steps_with_their_undos() -> None:
    one, two = fresh("one"), fresh("two")
    flow = Compensation(((one, release), (two, None)))
    first, second = flow.children
    assert isinstance(flow, Primitive)
    assert isinstance(first, Step)
    assert first.undo_completed is not None
    assert first.undo_completed.action is release
    assert second is two
    assert one.undo_completed is None
    assert repr(flow) == "Compensation(((one, release), (two, None),))"


@pytest.mark.parametrize(
    ("pairs", "match"),
    [
        ((), "an empty sequence"),
        (7, "7 is not a tuple of pairs; write Compensation"),
        (((fresh(),),), "is not a tuple of pairs"),
        ((fresh(), release), "is not a tuple of pairs"),
        (((act, release),), r"a pair begins with a step; <function act.* make it one with @step"),
        (((fresh().retry(), release),), "a pair begins with a step; Retry"),
        (((fresh(), 7),), "7 cannot undo anything"),
        (((fresh(), release_text),), r"called with Completed\[int, int\]"),
    ],
)
def test_a_mistake_in_pairs_is_refused(pairs: Any, match: str) -> None:
    with refused(match):
        _pairs(pairs)

"""The language: what can be composed, and what is refused while it is composed."""

from __future__ import annotations

import functools
import operator
from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import Any, Protocol, TypedDict

import pytest

from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import (
    Parallel,
    Primitive,
    Pure,
    Retry,
    Sequential,
    Timeout,
    pure,
)
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Completed, step
from orchestrator.errors import DefinitionError


@step
async def hold(order: int, ctx: WorkflowContext) -> str:
    return str(order)


@step
async def pay(hold: str, ctx: WorkflowContext) -> bytes:
    return hold.encode()


@step
async def ship(hold: str, ctx: WorkflowContext) -> float:
    return 0.5


async def release(done: Completed[Any, Any], ctx: WorkflowContext) -> None:
    return None


def shout(text: str) -> str:
    return text.upper()


_hold: Any = hold
_shout: Any = shout
_retry: Any = Retry
_timeout: Any = Timeout
_pure: Any = pure
_pairs: Any = Compensation
"""The same without types: what follows is refused by checkers, and must be refused at run time."""


def refused(match: str) -> Any:
    return pytest.raises(DefinitionError, match=match)


# ---------------------------------------------------------------------------- composing


def test_composition_is_inert_and_frozen() -> None:
    flow = hold >> pay
    assert isinstance(flow, Sequential)
    with pytest.raises(FrozenInstanceError):
        flow.steps = ()  # type: ignore[misc]  # what the test is about


def test_a_chain_is_the_same_however_it_is_bracketed() -> None:
    one: Any = (hold >> pure(shout)) >> pay
    other: Any = hold >> (pure(shout) >> pay)
    assert repr(one) == repr(other)
    assert Saga("s", 1, one).fingerprint == Saga("s", 1, other).fingerprint


def test_the_left_form_of_a_parallel_block_is_one_tuple_and_the_right_form_is_not() -> None:
    assert len((pay | ship | pay).children) == 3
    assert len((pay | (ship | pay)).children) == 2


def test_repr_prints_the_brackets_that_precedence_needs() -> None:
    assert repr(hold >> (pay | ship) >> pure(str)) == "hold >> (pay | ship) >> pure(str)"
    assert repr(hold.retry(2).timeout(5)) == "Timeout(Retry(hold, 2), 5)"


def test_fluent_forms_build_the_wrappers() -> None:
    fluent = hold.timeout(10).retry(5, on=(OSError,), initial=2, factor=3, cap=9, jitter=False)
    assert isinstance(fluent, Retry)
    assert isinstance(fluent.inner, Timeout)
    assert (fluent.max_retries, fluent.on, fluent.inner.after) == (5, (OSError,), 10)
    backoff = fluent.backoff
    assert (backoff.initial, backoff.factor) == (timedelta(seconds=2), 3)
    assert (backoff.cap, backoff.jitter) == (timedelta(seconds=9), False)


def test_map_appends_a_plain_function() -> None:
    flow: Any = hold.map(shout)
    assert isinstance(flow.steps[1], Pure)
    assert flow.steps[1].name == "shout"


def test_a_flow_knows_its_types() -> None:
    flow = hold >> (pay | ship)
    assert flow.input_type is int
    assert flow.output_type == tuple[bytes, float]
    assert Retry(flow).output_type == tuple[bytes, float]


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: _hold >> shout, r">>: shout is a bare function; say @step .* pure\(shout\)"),
        (lambda: _shout >> hold, r">>: shout is a bare function"),
        (lambda: _hold | shout, r"\|: shout is a bare function"),
        (lambda: _shout | hold, r"\|: shout is a bare function"),
        (lambda: _hold >> 7, r">>: 7 is not part of a flow"),
        (lambda: _hold >> (lambda x: x), r"<lambda> is a bare function"),
        (lambda: _retry(shout), "Retry: shout is a bare function"),
        (lambda: _timeout(7, 1), "Timeout: 7 is not part of a flow"),
        (lambda: Retry(hold, -1), "max_retries is -1"),
        (lambda: Retry(hold, factor=0.5), "waits must not shrink"),
        (lambda: Retry(hold, initial=-1), "cannot be negative"),
        (lambda: Timeout(hold, 0), "never lets anything run"),
        (lambda: Timeout(hold, timedelta(seconds=-1)), "never lets anything run"),
        (lambda: Parallel((hold,)), "two branches or more"),
        (lambda: Sequential(()), "an empty sequence"),
        (lambda: _pairs(()), "an empty sequence"),
        (lambda: _pairs(((shout, None),)), "a pair begins with a step"),
        (lambda: _hold >> hold, "hold gives str, but hold takes int; put a pure"),
        (lambda: _hold.undo(pay), "cannot undo anything"),
        (lambda: hold.without_undo(" "), "needs a reason"),
        (lambda: hold.named("no/slash"), "step name 'no/slash': use 1 to 100"),
        (lambda: hold.named(""), "step name ''"),
        (lambda: hold.named("x" * 101), "use 1 to 100"),
        (lambda: hold.named("<lambda>"), "step name '<lambda>'"),
        (lambda: step(lambda x, ctx: x), "a lambda cannot be told apart"),
        (lambda: step(name="a b")(release), "step name 'a b'"),
        (lambda: step(timeout=0)(release), "never lets it run"),
        (lambda: step(retries=-1)(release), "0 means one attempt only"),
        (lambda: step(once=True, retries=1)(release), "contradict each other"),
        (lambda: _pure(hold), "is part of a flow already"),
        (lambda: _pure(release), "it may have effects; make it a @step"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_when_it_is_built(build: Any, match: str) -> None:
    with refused(match):
        build()


def test_a_step_must_take_an_input_and_a_context() -> None:
    async def lonely(order: int) -> int:
        return order

    async def greedy(order: int, ctx: Any, more: int) -> int:
        return order

    for fn in (lonely, greedy):
        untyped: Any = fn
        with refused(r"it is called with \(input, ctx\)"):
            step(untyped)


def test_an_unknown_annotation_is_refused_with_a_hint() -> None:
    async def odd(order: Nowhere, ctx: Any) -> int:  # type: ignore[name-defined]  # noqa: F821 - meant
        return 1

    with refused("define its models at module level"):
        step(odd)


def test_neighbours_that_meet_by_inheritance_or_number_are_accepted() -> None:
    @step
    async def count(value: object, ctx: Any) -> int:
        return 1

    @step
    async def weigh(value: float, ctx: Any) -> bool:
        return True

    assert (hold >> count >> weigh).output_type is bool


def test_wrong_tuple_arity_between_neighbours_is_refused() -> None:
    @step
    async def join(parts: tuple[bytes, float, int], ctx: Any) -> int:
        return 1

    with refused("but join takes"):
        _hold >> (pay | ship) >> join


class Talks(Protocol):
    def talk(self) -> str: ...


class Row(TypedDict):
    id: int


def test_types_that_cannot_be_compared_are_let_through() -> None:
    @step
    async def listens(value: Talks, ctx: Any) -> dict[str, int]:
        return {}

    @step
    async def reads(value: Row, ctx: Any) -> int:
        return value["id"]

    @step
    async def makes(value: str, ctx: Any) -> dict:  # type: ignore[type-arg]  # a bare class is what is compared
        return {}

    chain: Any = hold
    assert (chain >> listens).input_type is int
    assert (chain >> makes >> reads).output_type is int


def test_pure_takes_any_plain_callable() -> None:
    first = operator.itemgetter(0)
    fixed = functools.partial(int, base=16)
    assert [pure(fn).input_type for fn in (str, len, first, fixed)] == [Any] * 4


# ---------------------------------------------------------------------------- compensations


def fresh(name: str = "fresh") -> Any:
    async def act(value: int, ctx: Any) -> int:
        return value

    return step(name=name)(act)


def test_a_compensation_completes_its_step_in_place_and_gives_the_function_back() -> None:
    made = fresh()
    assert made.compensation(release) is release
    assert made.undo_completed.action is release
    assert made.undo_of_completed is made.undo_completed


def test_a_compensation_with_options_keeps_them() -> None:
    made = fresh()
    made.compensation_on_doubt(retries=4, timeout=7)(release)
    assert made.undo_attempted.timeout == timedelta(seconds=7)
    assert made.undo_attempted.policy.max_retries == 4
    assert made.undo_of_completed is made.undo_attempted


def test_a_second_compensation_is_refused() -> None:
    made = fresh()
    made.compensation(release)
    with refused("has this compensation already"):
        made.compensation(release)
    made.compensation_on_doubt(release)
    with refused("has this compensation already"):
        made.compensation_on_doubt(release)


def test_a_compensation_after_the_saga_was_built_is_refused() -> None:
    made = fresh()
    Saga("s", 1, Retry(made))
    with refused("already part of a saga"):
        made.compensation(release)


def test_copies_can_be_declared_anew_and_leave_the_original_alone() -> None:
    made = fresh()
    Saga("s", 1, made)
    other = made.named("other")
    other.compensation(release)
    assert (made.undo_completed, other.name) == (None, "other")
    assert made.undo(release).undo_completed.action is release
    assert made.without_undo("it costs nothing").no_undo_reason == "it costs nothing"


def test_pairs_build_the_chain_of_steps_with_their_undos() -> None:
    one, two = fresh("one"), fresh("two")
    flow = Compensation(((one, release), (two, None)))
    first, second = flow.children
    assert isinstance(flow, Primitive)
    assert first.undo_completed.action is release  # type: ignore[attr-defined]  # a Step, seen as a node
    assert second is two
    assert one.undo_completed is None

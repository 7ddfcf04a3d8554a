"""The language: what can be composed, and what is refused while it is composed."""

from __future__ import annotations

import functools
import operator
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import FrozenInstanceError, dataclass
from datetime import timedelta
from typing import Any, NewType, Protocol, TypedDict

import pytest

from orchestrator.domain.branching import each
from orchestrator.domain.context import View, WorkflowContext
from orchestrator.domain.definition import Parallel, Pure, Sequential, pure
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga
from orchestrator.domain.signatures import may_fit
from orchestrator.domain.steps import step
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.domain.wrappers import Retry, Timeout
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


@step
async def join(parts: tuple[bytes, float, int], ctx: WorkflowContext) -> int:
    return 1


@step
async def total(values: list[int], ctx: WorkflowContext) -> int:
    return sum(values)


@step
async def anything(value: Any, ctx: WorkflowContext) -> Any:
    return value


def shout(text: str) -> str:
    return text.upper()


async def later(value: str) -> str:
    return value


def generator(value: str) -> Iterator[str]:
    yield value


async def async_generator(value: str) -> AsyncIterator[str]:
    yield value


class Later:
    """What is called is not seen to be async, only its `__call__` is."""

    async def __call__(self, value: str) -> str:
        return value


_hold: Any = hold
_pay: Any = pay
_shout: Any = shout
_pure: Any = pure
_sequential: Any = Sequential
_parallel: Any = Parallel
"""The same without types: what follows is refused by checkers, and must be refused at run time."""

inner = Saga("inner", 1, hold)
verdict = Signal("verdict", int)


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
    by_hand: Any = Sequential((hold, Sequential((pure(shout), pay))))
    assert repr(one) == repr(other) == repr(by_hand)
    prints = {Saga("s", 1, flow).fingerprint for flow in (one, other, by_hand)}
    assert len(prints) == 1


def test_pairs_of_do_and_undo_stay_a_scope_of_their_own_in_a_chain() -> None:
    chain: Any = Compensation(((hold, None),)) >> pay
    assert [type(part).__name__ for part in chain.steps] == ["Compensation", "Step"]


def test_the_left_form_of_a_parallel_block_is_one_tuple_and_the_right_form_is_not() -> None:
    assert len((pay | ship | pay).children) == 3
    assert len((pay | (ship | pay)).children) == 2


def test_a_block_keeps_its_options_when_a_branch_is_added() -> None:
    block = (pay | ship).with_options(limit=1, on_failure="cancel", undo="parallel") | pay
    assert (len(block.branches), block.limit) == (3, 1)
    assert (block.on_failure, block.undo) == ("cancel", "parallel")


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
    assert ((sleep(1) >> pay) | anything).input_type is str
    assert (sleep(1) >> hold >> sleep(1)).output_type is str


def test_the_class_of_what_a_function_makes_is_its_output() -> None:
    assert pure(str).output_type is str
    with refused("pure.bytes. gives bytes, but pay takes str"):
        _hold >> pure(bytes) >> pay


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (hold >> (pay | ship) >> pure(len), "hold >> (pay | ship) >> pure(len)"),
        (hold | anything >> anything, "hold | anything >> anything"),
        (hold | (hold | anything), "hold | (hold | anything)"),
        (Parallel(((hold | hold), hold)), "Parallel((hold | hold, hold))"),
        ((pay | ship).with_options(limit=1), "(pay | ship).with_options(limit=1)"),
        (
            hold >> (pay | ship).with_options(on_failure="cancel", undo="parallel"),
            "hold >> (pay | ship).with_options(on_failure='cancel', undo='parallel')",
        ),
        (Sequential((hold,)), "Sequential((hold,))"),
        (hold.map(lambda text: text), "hold >> pure(<lambda>)"),
        (hold.retry(2).timeout(5), "Timeout(Retry(hold, max_retries=2), 5)"),
        (Retry(hold >> pay), "Retry(hold >> pay)"),
        ((hold >> pay).keep(), "(hold >> pay).keep()"),
        ((pay | ship).keep(), "(pay | ship).keep()"),
    ],
)
def test_a_flow_is_printed_as_it_is_written(node: Any, text: str) -> None:
    assert repr(node) == text


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: _hold >> shout, r">>: shout is a bare function; say @step .* pure\(shout\)"),
        (lambda: _shout >> hold, r">>: shout is a bare function"),
        (lambda: _hold | shout, r"\|: shout is a bare function"),
        (lambda: _shout | hold, r"\|: shout is a bare function"),
        (lambda: _hold >> 7, r">>: 7 is not part of a flow; use steps made by @step"),
        (lambda: 7 >> _hold, r">>: 7 is not part of a flow"),
        (lambda: "x" | _hold, r"\|: 'x' is not part of a flow"),
        (lambda: _hold >> (lambda x: x), r"a lambda is a bare function; say \.map\(lambda"),
        (lambda: _hold >> Retry, r"Retry is a class; say what .* Retry\(step, \.\.\.\)"),
        (lambda: _hold >> inner, r">>: inner is a whole saga; .* inner\.child\(\)"),
        (lambda: _hold >> verdict, r">>: verdict is a signal; .* verdict\.wait\(within"),
        (lambda: _hold >> None, ">>: None is not part of a flow"),
        (lambda: Sequential(()), "an empty sequence does nothing; give it at least one step"),
        (lambda: _sequential((hold, shout)), "Sequential: shout is a bare function"),
        (lambda: _sequential(hold), "Sequential takes several parts; hold is not a list"),
        (lambda: _sequential(7), "Sequential takes several parts; 7 is not a list"),
        (lambda: _parallel(()), "two branches or more"),
        (lambda: Parallel((hold,)), "two branches or more"),
        (lambda: _parallel((hold, shout)), "Parallel: shout is a bare function"),
        (lambda: _parallel("ab"), "Parallel takes several parts; 'ab' is not a list"),
        (lambda: Parallel((pay, ship), limit=0), "Parallel: limit is 0; give a whole number"),
        (lambda: Parallel((pay, ship), limit=True), "Parallel: limit is True"),
        (lambda: _parallel((pay, ship), limit=1.5), "Parallel: limit is 1.5"),
        (lambda: _parallel((pay, ship), on_failure="stop"), 'say "settle" or "cancel"'),
        (lambda: _parallel((pay, ship), undo="random"), 'say "sequential" or "parallel"'),
        (lambda: (pay | ship).with_options(limit=-1), "Parallel: limit is -1"),
        (lambda: _pure(hold), "hold is part of a flow already; pure.. takes a plain function"),
        (lambda: _pure(later), "pure: later is async or a generator; .* make it a @step"),
        (lambda: _pure(Later()), "is async or a generator"),
        (lambda: _pure(functools.partial(later)), "is async or a generator"),
        (lambda: _pure(generator), "generator is async or a generator"),
        (lambda: _pure(async_generator), "async_generator is async or a generator"),
        (lambda: _pure(7), "pure is 7; give a plain function"),
        (lambda: _pure(lambda: 1), r"pure takes \(\), but it is called with \(input\)"),
        (lambda: _pure(operator.add), r"add takes \(a, b\), but it is called with \(input\)"),
        (lambda: _hold.map(later), "later is async or a generator"),
        (lambda: _hold.map(pay), "pay is part of a flow already"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_when_it_is_built(build: Any, match: str) -> None:
    with refused(match):
        build()


def test_a_long_part_is_cut_in_a_message() -> None:
    block: Any = Parallel(tuple(pay.named(f"pay-{n}") for n in range(300)))
    with pytest.raises(DefinitionError) as caught:
        block >> pay
    assert len(str(caught.value)) < 5_000
    assert "pay-0 | pay-1 " in str(caught.value)


def test_a_chain_of_thousands_is_built_in_a_moment() -> None:
    chain: Any = anything
    for _ in range(2_000):
        chain = chain >> anything
    assert len(chain.steps) == 2_001


# ---------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: _hold >> hold, "hold gives str, but hold takes int; put a pure"),
        (lambda: _hold >> pay >> pay, "pay gives bytes, but pay takes str"),
        (lambda: _hold >> (pay | ship) >> join, "but join takes tuple"),
        (lambda: _hold >> each(hold), r"hold gives str, but each\(hold\) takes list\[int\]"),
        (lambda: pure(_list_of_str) >> each(hold), r"list\[str\], but each\(hold\) takes list"),
        (lambda: _hold >> total, r"hold gives str, but total takes list\[int\]"),
        (lambda: _hold >> sleep(1) >> hold, "hold gives str, but hold takes int"),
        (lambda: _hold >> (sleep(1) >> sleep(1)) >> hold, "hold gives str, but hold takes int"),
        (lambda: _hold >> sleep(1).retry().timeout(5) >> hold, "hold gives str, but hold takes"),
        (lambda: (_hold >> sleep(1)).scope() >> hold, r"Scope\(.* gives str, but hold takes int"),
        (lambda: (_hold >> sleep(1)) >> (sleep(1) >> hold), "hold gives str, but hold takes int"),
        (lambda: _hold.keep() >> pay, r"hold.keep\(\) gives tuple\[int, str\], but pay takes str"),
        (lambda: _pay.using(_of_view) >> pay, r"pay.using\(_of_view\) gives bytes, but pay"),
        (lambda: each(hold) >> pay, r"each\(hold\) gives list\[str\], but pay takes str"),
        (lambda: verdict.wait() >> _pay, r"verdict.wait\(\) gives int, but pay takes str"),
        (lambda: inner.child() >> _hold, r"inner.child\(\) gives str, but hold takes int"),
        (lambda: _hold | pay, r"\|: hold takes int, but pay takes str; branches get the same"),
        (lambda: anything | _hold | pay, "hold takes int, but pay takes str"),
        (lambda: sleep(1) | _hold | pay, "hold takes int, but pay takes str"),
        (lambda: Parallel((_hold, anything, pay)), "hold takes int, but pay takes str"),
    ],
)  # fmt: skip
def test_neighbours_whose_types_cannot_meet_are_refused(build: Any, match: str) -> None:
    with refused(match):
        build()


def _list_of_str(value: int) -> list[str]:
    return []


def _of_view(view: View) -> str:
    return ""


class Talks(Protocol):
    def talk(self) -> str: ...


class Row(TypedDict):
    id: int


class Animal: ...


class Dog(Animal): ...


@dataclass
class Box(typing.Generic[typing.TypeVar("T")]):  # type: ignore[misc]  # only its arguments matter
    inside: Any


UserId = NewType("UserId", int)

FITS: list[tuple[Any, Any]] = [
    (int, int), (Dog, Animal), (bool, int), (int, float), (int, complex), (int, object),
    (Any, int), (int, Any), (int, Talks), (int, Row), (Row, dict), (dict, Row),
    (int, int | None), (int | None, int), (None, int | None), (None, type(None)),
    (int | str, str), (UserId, int), (int, UserId),
    (list[int], list[int]), (list[bool], list[int]), (list[int], list), (list, list[int]),
    (list[int], Sequence[int]), (Sequence[int], list[int]), (tuple[int, ...], list[int]),
    (tuple[int, str], tuple[int, str]), (tuple[bool, Any], tuple[int, str]),
    (tuple[int, str], tuple[int, ...]), (tuple[int, str], tuple), (tuple, tuple[int, str]),
    (tuple[int, str], object), (dict[str, int], dict[str, float]), (list[Any], list[int]),
    (Box[int], Box[int]), (Box[Dog], Box[Animal]), (Box[int], Box), (Box, Box[int]),
    (typing.Literal["a"], int), (Callable[[int], str], Callable[[str], int]),
    (typing.TypeVar("T"), int), (int, typing.TypeVar("T")), (str, Sequence[str]),
]  # fmt: skip

DOES_NOT_FIT: list[tuple[Any, Any]] = [
    (int, str), (float, int), (Animal, Dog), (object, int), (None, int), (int, None),
    (int, str | None), (int | None, str), (list[int], list[str]), (list[int], Sequence[str]),
    (int, list[int]), (str, list[str]), (list[int], int), (list[int], dict[str, int]),
    (list[str], set[str]), (dict[str, int], dict[str, str]), (tuple[int, str], tuple[int]),
    (tuple[int, str], tuple[str, int]), (tuple[int, str], int), (int, tuple[int, str]),
    (Box[int], Box[str]), (UserId, str), (list[str], str), (Sequence[str], str),
    (list[list[int]], list[list[str]]), (tuple[list[int], int], tuple[list[str], int]),
]  # fmt: skip


@pytest.mark.parametrize(("gives", "takes"), FITS)
def test_types_that_may_meet_are_let_through(gives: Any, takes: Any) -> None:
    assert may_fit(gives, takes)


@pytest.mark.parametrize(("gives", "takes"), DOES_NOT_FIT)
def test_types_that_never_meet_are_told_apart(gives: Any, takes: Any) -> None:
    assert not may_fit(gives, takes)


def test_pure_takes_any_plain_callable() -> None:
    first = operator.itemgetter(0)
    fixed = functools.partial(int, base=16)
    assert [pure(fn).input_type for fn in (str, len, first, fixed)] == [Any] * 4
    assert [pure(fn).label for fn in (str, first)] == ["pure str", "pure itemgetter"]

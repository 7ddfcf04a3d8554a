"""Alternatives, routes, lists and loops: what they are made of, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.branching import Each, Fallback, Loop, Router, each, loop, when
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import pure
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import step
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.errors import DefinitionError

NAN, INF = float("nan"), float("inf")


@step
async def card(cents: int, ctx: WorkflowContext) -> str:
    return "card"


@step
async def voucher(cents: int, ctx: WorkflowContext) -> str:
    return "voucher"


@step
async def hand(cents: float, ctx: WorkflowContext) -> str:
    return "hand"


@step
async def letter(text: str, ctx: WorkflowContext) -> str:
    return text


@step
async def count(cents: int, ctx: WorkflowContext) -> int:
    return cents + 1


@step
async def check(cents: int, ctx: WorkflowContext) -> bool:
    return True


@step
async def anything(value: Any, ctx: WorkflowContext) -> Any:
    return value


def large(cents: int) -> bool:
    return cents > 100


def wordy(text: str) -> bool:
    return text != ""


async def later(cents: int) -> bool:
    return True


def size(cents: int, ctx: WorkflowContext) -> str:
    return "small"


def size_of_text(text: str, ctx: WorkflowContext) -> str:
    return "small"


def number(cents: int, ctx: WorkflowContext) -> int:
    return 1


async def size_later(cents: int, ctx: WorkflowContext) -> str:
    return "small"


ROUTES = {"small": voucher, "normal": card}
_when: Any = when
_each: Any = each
_loop: Any = loop
_router: Any = Router
_fallback: Any = Fallback
inner = Saga("inner", 1, card)
verdict = Signal("verdict", int)


def refused(match: str) -> Any:
    return pytest.raises(DefinitionError, match=match)


# ---------------------------------------------------------------------------- what they are


def test_fallback_holds_the_alternatives_in_order() -> None:
    node = Fallback(card, [voucher, hand])
    assert node.children == (card, voucher, hand)
    assert isinstance(card.fallback(voucher), Fallback)
    assert (node.input_type, node.output_type) == (int, str)


def test_a_router_calls_its_function_and_keeps_its_routes() -> None:
    routes = dict(ROUTES)
    node = Router(routes, size, default="normal")
    routes.clear()
    assert node.names == ("small", "normal")
    assert node.choose(5, WorkflowContext()) == "small"
    assert (node.input_type, node.output_type) == (int, str)


def test_when_is_a_router_that_asks_a_condition() -> None:
    node: Any = when(large, then=hand, otherwise=card)
    assert node.names == ("then", "otherwise")
    assert [node.choose(cents, WorkflowContext()) for cents in (5, 500)] == ["otherwise", "then"]


def test_when_without_otherwise_passes_the_input_on() -> None:
    node: Any = when(large, then=count)
    assert node.children[1].passes_on
    assert (node.input_type, node.output_type) == (int, int)
    assert when(large, then=check).output_type is int
    assert when(large, then=sleep(5)).passes_on


def test_the_narrowest_input_and_the_widest_output_are_those_of_all() -> None:
    assert Fallback(hand, [card]).input_type is int
    assert Fallback(anything, [card]).input_type is int
    assert Fallback(check, [count]).output_type is int
    assert Fallback(anything, [count]).output_type is int
    assert when(large, then=hand, otherwise=card).input_type is int


def test_each_takes_and_gives_a_list() -> None:
    node: Any = each(card, concurrency=5)
    assert isinstance(node, Each)
    assert (node.input_type, node.output_type) == (list[int], list[str])
    assert (node.concurrency, node.limit) == (5, 10_000)


def test_a_loop_takes_and_gives_the_same() -> None:
    node: Any = loop(count, until=large, max_iterations=3, pause=timedelta(minutes=1))
    assert isinstance(node, Loop)
    assert (node.input_type, node.output_type) == (int, int)
    assert loop(sleep(1), until=large, max_iterations=3).passes_on


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (Fallback(card, [voucher, hand]), "Fallback(card, [voucher, hand])"),
        (
            Router(ROUTES, router_fn=size, default="normal"),
            "Router({'small': voucher, 'normal': card}, router_fn=size, default='normal')",
        ),
        (Router({"a": card}, lambda v, ctx: "a"), "Router({'a': card}, router_fn=<lambda>)"),
        (when(large, then=count), "when(large, then=count)"),
        (
            when(lambda cents: cents > 5, then=card >> letter, otherwise=voucher),
            "when(<lambda>, then=card >> letter, otherwise=voucher)",
        ),
        (each(card), "each(card)"),
        (each(card, concurrency=2, limit=5), "each(card, concurrency=2, limit=5)"),
        (loop(count, until=large, max_iterations=3), "loop(count, until=large, max_iterations=3)"),
        (
            loop(count, until=large, max_iterations=3, pause=timedelta(minutes=30)),
            "loop(count, until=large, max_iterations=3, pause=1800)",
        ),
    ],
)
def test_a_branch_is_printed_as_it_is_written(node: Any, text: str) -> None:
    assert repr(node) == text


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Fallback(card, []), r"Fallback: without .*; write Fallback\(primary, \[alt"),
        (card.fallback, "Fallback: without an alternative"),
        (lambda: _fallback(large, [card]), "Fallback: large is a bare function"),
        (lambda: _fallback(card, [large]), "Fallback: alternatives: large is a bare function"),
        (lambda: _fallback(card, [lambda v: v]), "alternatives: a lambda is a bare function"),
        (lambda: _fallback(card, [inner]), r"inner is a whole saga; .* inner\.child\(\)"),
        (lambda: _fallback(card, voucher), "alternatives takes several parts; voucher is not a"),
        (lambda: _fallback(card, 7), "alternatives takes several parts; 7 is not a list"),
        (lambda: _fallback(card, "ab"), "'ab' is not a list"),
        (lambda: _fallback(card, [letter]), "Fallback: card takes int, but letter takes str"),
        (lambda: _fallback(card, [count]), "card gives str, but count gives int; alternatives"),
        (lambda: _fallback(anything, [card, letter]), "card takes int, but letter takes str"),
        (lambda: _fallback(card, [sleep(5)]), r"card gives str, but sleep\(5\) gives int"),
        (lambda: _fallback(sleep(5), [card]), r"sleep\(5\) gives int, but card gives str"),
        (lambda: Router({}, size), 'Router: give it at least one route'),
        (lambda: _router([card], size), r"Router: routes is \[card\]; give parts by name"),
        (lambda: _router(None, size), "Router: routes is None"),
        (lambda: _router({"a b": card}, size), "route name 'a b': use 1 to 100"),
        (lambda: _router({"": card}, size), "route name ''"),
        (lambda: _router({7: card}, size), "route name 7"),
        (lambda: _router({"a": large}, size), "route 'a': large is a bare function"),
        (lambda: _router({"a": lambda v: v}, size), "route 'a': a lambda is a bare function"),
        (lambda: _router({"a": inner}, size), r"route 'a': inner is a whole saga"),
        (lambda: _router({"a": card, "b": letter}, size), "Router: card takes int, but letter"),
        (lambda: _router({"a": card, "b": count}, size), "Router: card gives str, but count gives"),
        (lambda: _router({"a": card, "b": sleep(1)}, size), "card gives str, but sleep.1. gives"),
        (lambda: _router({"a": anything, "b": card, "c": letter}, size), "card takes int, but"),
        (lambda: Router(ROUTES, size, "other"), "'other' is no route; there are small, normal"),
        (lambda: _router(ROUTES, size, 7), "the default 7 is no route"),
        (lambda: _router(ROUTES, size, []), r"the default \[\] is no route"),
        (lambda: _router(ROUTES, "small"), "Router: router_fn is 'small'; give a plain function"),
        (lambda: _router(ROUTES, card), "Router: router_fn is card; give a plain function"),
        (lambda: _router(ROUTES, large), r"large takes \(cents\), .* called with \(input, ctx\)"),
        (lambda: _router(ROUTES, size_later), "size_later is async or a generator; let a @step"),
        (lambda: _router(ROUTES, size_of_text), "size_of_text takes str, .* called with int"),
        (lambda: _router(ROUTES, number), "number gives int, but str is needed"),
        (lambda: _when(large, card), "card turns int into str, so say what happens otherwise"),
        (lambda: _when(large, large), "when: then: large is a bare function"),
        (lambda: _when(large, card, large), "when: otherwise: large is a bare function"),
        (lambda: _when(large, card, inner), "when: otherwise: inner is a whole saga"),
        (lambda: _when(large, card, letter), "card takes int, but letter takes str"),
        (lambda: _when(large, card, count), "card gives str, but count gives int"),
        (lambda: _when(card, count), "when: condition is card; give a plain function"),
        (lambda: _when(True, count), "when: condition is True; give a plain function"),
        (lambda: _when(later, count), "when: condition: later is async or a generator"),
        (lambda: _when(lambda: True, count), r"condition takes \(\), .* called with \(input\)"),
        (lambda: _when(wordy, count), "wordy takes str, but it is called with int"),
        (lambda: _when(wordy, card, hand), "wordy takes str, but it is called with int"),
        (lambda: _each(large), "each: large is a bare function"),
        (lambda: _each(inner), r"each: inner is a whole saga; .* inner\.child\(\)"),
        (lambda: _each([card]), r"each: \[card\] is not part of a flow"),
        (lambda: _loop(large, until=large, max_iterations=1), "loop: large is a bare function"),
        (lambda: _loop(card, until=wordy, max_iterations=1), "card gives str but takes int; its"),
        (lambda: _loop(count >> card, until=wordy, max_iterations=1), "gives str but takes int"),
        (lambda: _loop(count, until=count, max_iterations=1), "loop: until is count; give a plain"),
        (lambda: _loop(count, until=True, max_iterations=1), "loop: until is True; give a plain"),
        (lambda: _loop(count, until=later, max_iterations=1), "loop: until: later is async"),
        (lambda: _loop(count, until=size, max_iterations=1), r"size takes \(cents, ctx\), but"),
        (lambda: _loop(count, until=wordy, max_iterations=1), "wordy takes str, but .* with int"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_branch_is_refused(build: Any, match: str) -> None:
    with refused(match):
        build()


def test_a_loop_without_a_bound_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="max_iterations"):
        _loop(count, until=large)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, INF, "5", None, 10_001, 10**400])
def test_a_bound_is_a_whole_number_within_limits(bad: Any) -> None:
    builds: list[tuple[Callable[[], Any], str]] = [
        (lambda: loop(count, until=large, max_iterations=bad), "loop: max_iterations is .* 10,000"),
        (lambda: each(card, concurrency=bad), "each: concurrency is .* from 1 to 1,000"),
    ]
    for build, match in builds:
        with refused(match):
            build()


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "5", None, 10**9])
def test_a_limit_of_items_is_a_whole_number(bad: Any) -> None:
    with refused("each: limit is .*; give a whole number from 1 to 1,000,000"):
        each(card, limit=bad)


@pytest.mark.parametrize("bad", [-1, -1e-9, NAN, INF, 1e30, True, "5", None, timedelta.max])
def test_a_pause_is_a_time(bad: Any) -> None:
    with refused("loop: pause is .*; give"):
        loop(count, until=large, max_iterations=2, pause=bad)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: when(large, then=count) >> letter, "gives int, but letter takes str"),
        (lambda: letter >> _when(large, then=count), "letter gives str, but when.* takes int"),
        (lambda: letter >> _router(ROUTES, size), "letter gives str, but Router.* takes int"),
        (lambda: letter >> _fallback(card, [voucher]), "letter gives str, but Fallback.* takes"),
        (lambda: letter >> _when(large, sleep(1)) >> count, "letter gives str, but count takes"),
        (lambda: loop(count, until=large, max_iterations=2) >> letter, "gives int, but letter"),
        (lambda: letter >> _each(card), r"letter gives str, but each\(card\) takes list\[int\]"),
        (lambda: each(card) >> each(count), r"gives list\[str\], but each\(count\) takes list"),
        (lambda: pure(len) >> _each(card) >> _each(letter) >> _each(count), "gives list.str."),
    ],
)
def test_wrong_neighbours_of_a_branch_are_refused(build: Any, match: str) -> None:
    with refused(match):
        build()

"""`@flow`: how the code is declared, and what it may ask for."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.branching import each
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import pure
from orchestrator.domain.flow import Flow, FlowNode, Request, describe, flow
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Completed, step
from orchestrator.domain.waiting import Signal, Sleep, Wait
from orchestrator.errors import DefinitionError

NAN, INF = float("nan"), float("inf")


@step
async def pay(cents: int, ctx: WorkflowContext) -> str:
    return str(cents)


@step
async def ship(text: str, ctx: WorkflowContext) -> str:
    return text


@ship.compensation
async def unship(done: Completed[str, str], ctx: WorkflowContext) -> None: ...


@flow
async def negotiate(cents: int, f: Flow) -> str:
    return await f.run(pay, cents)


verdict = Signal("verdict", int)
_flow: Any = flow
f: Any = Flow()


def asked(coroutine: Any) -> Request:
    """The first thing that a piece of a flow's code asks for."""
    request = coroutine.send(None)
    coroutine.close()
    assert isinstance(request, Request)
    return request


def refused(match: str) -> Any:
    return pytest.raises(DefinitionError, match=match)


def test_a_flow_is_a_part_with_the_name_and_types_of_its_code() -> None:
    node: Any = negotiate
    assert isinstance(node, FlowNode)
    assert (node.name, node.identity, repr(node)) == ("negotiate", "negotiate", "negotiate")
    assert (node.label, node.input_type, node.output_type) == ("flow negotiate", int, str)
    assert (pure(int) >> negotiate >> ship).output_type is str
    with refused("negotiate gives str, but pay takes int"):
        node >> pay


def test_each_word_is_a_request_for_a_part() -> None:
    run = asked(f.run(pay, 5))
    assert (run.node, run.value, run.what) == (pay, 5, "Step:pay")
    receive = asked(f.receive(verdict, within=60))
    assert isinstance(receive.node, Wait)
    assert (receive.node.within, receive.what) == (timedelta(minutes=1), "Wait:verdict")
    slept = asked(f.sleep(0.5))
    assert isinstance(slept.node, Sleep)
    assert slept.node.duration == timedelta(milliseconds=500)


def test_a_request_is_described_by_its_kinds_and_names() -> None:
    assert describe(pay.retry(2) >> (ship | pure(len))) == (
        "Sequential(Retry(Step:pay),Parallel(Step:ship,Pure:len))"
    )


async def lonely(value: int) -> int:
    return value


def plain(value: int, f: Flow) -> int:
    return value


async def yields(value: int, f: Flow) -> AsyncIterator[int]:
    yield value


async def code(value: int, f: Flow) -> int:
    return value


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: _flow(plain), r"'plain' is not an async function; write async def plain\(input,"),
        (lambda: _flow(yields), "'yields' is not an async function"),
        (lambda: _flow(lonely), r"'lonely' takes \(value\), but it is called with \(input, f\)"),
        (lambda: _flow(lambda v, f: v), "flow name '<lambda>': use 1 to 100"),
        (lambda: _flow(functools.partial(code)), "flow name None: use 1 to 100"),
        (lambda: _flow(7), "flow name None"),
        (lambda: _flow(pay), "pay is part of a flow already; @flow takes a function"),
    ],
)
def test_a_mistake_in_a_flow_is_refused(build: Any, match: str) -> None:
    with refused(match):
        build()


# ---------------------------------------------------------------------------- what it asks for


pivoted = Saga("pivoted", 1, pay.pivot())
deep: Any = pay
for _ in range(60):
    deep = deep.scope()


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda: f.run(lonely, 1), r"f\.run\(\): lonely is a bare function; say @step"),
        (lambda: f.run(verdict, 1), r"f\.run\(\): verdict is a signal"),
        (lambda: f.run(pivoted, 1), r"f\.run\(\): pivoted is a whole saga; .* pivoted\.child\(\)"),
        (
            lambda: f.run(pay.pivot(), 1),
            r"pay\.pivot\(\) is a pivot, and a pivot stands on the spi",
        ),
        (lambda: f.run(pivoted.child(), 1), r"pivoted\.child\(\) is a pivot"),
        (lambda: f.run(each(pay.pivot()), []), "is a pivot"),
        (lambda: f.run(ship.cache(60), ""), "'ship' is undone when the saga turns round"),
        (lambda: f.run(ship >> ship, ""), "step 'ship' stands in two places"),
        (lambda: f.run(deep, 1), r"f\.run\(\) is nested deeper than 50 levels"),
        (lambda: f.receive("verdict"), "what is waited for is a Signal, not 'verdict'"),
        (lambda: f.receive(verdict, within=0), "wait for 'verdict': within is 0"),
        (lambda: f.receive(verdict, within=NAN), "wait for 'verdict': within is nan"),
        (lambda: f.sleep(-1), r"f\.sleep\(\) is -1; give 0 or more seconds"),
        (lambda: f.sleep(INF), r"f\.sleep\(\) is inf"),
        (lambda: f.sleep(True), r"f\.sleep\(\) is True; give seconds or a timedelta"),
    ],
)
def test_a_mistake_in_a_request_is_refused_before_it_is_recorded(ask: Any, match: str) -> None:
    coroutine = ask()
    with refused(match):
        coroutine.send(None)


def test_what_may_stand_in_a_saga_may_be_asked_for() -> None:
    child = Saga("child", 1, ship)
    for node in (pay.retry(3), ship.named("other") >> ship, each(child.child()), pay.cache(60)):
        assert asked(f.run(node, None)).node is node

"""Timers and signals: how they are declared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.definition import Primitive
from orchestrator.domain.steps import step
from orchestrator.domain.waiting import Signal, Sleep, Wait, sleep
from orchestrator.errors import DefinitionError

NAN, INF = float("nan"), float("inf")


@dataclass
class Verdict:
    approved: bool


verdict = Signal("verdict", Verdict)
_signal: Any = Signal
_wait: Any = Wait


def refused(match: str) -> Any:
    return pytest.raises(DefinitionError, match=match)


def test_a_sleep_passes_on_what_it_gets() -> None:
    assert sleep(timedelta(minutes=5)).duration == sleep(300).duration == timedelta(minutes=5)
    assert sleep(0).duration == timedelta(0)
    assert sleep(1).passes_on
    assert sleep(1).input_type is sleep(1).output_type is Any


def test_a_wait_gives_the_payload_whatever_comes_before_it() -> None:
    wait: Any = verdict.wait(within=timedelta(days=2))
    assert (wait.input_type, wait.output_type) == (Any, Verdict)
    assert (wait.signal, wait.within, wait.identity) == (verdict, timedelta(days=2), "verdict")
    soon: Any = verdict.wait(5)
    assert soon.within == timedelta(seconds=5)
    assert not wait.passes_on


def test_a_payload_may_be_any_type_that_can_be_written() -> None:
    assert [Signal("s", kind).model for kind in (int, list[int], dict[str, int])] == [
        int, list[int], dict[str, int],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (sleep(300), "sleep(300)"),
        (sleep(timedelta(days=20, seconds=1)), "sleep(1728001)"),
        (sleep(0.25), "sleep(0.25)"),
        (sleep(0), "sleep(0)"),
        (verdict, "Signal('verdict', Verdict)"),
        (Signal("numbers", list[int]), "Signal('numbers', list[int])"),
        (verdict.wait(), "verdict.wait()"),
        (verdict.wait(within=timedelta(days=2)), "verdict.wait(within=172800)"),
    ],
)
def test_what_waits_is_printed_as_it_is_written(value: Any, text: str) -> None:
    assert repr(value) == text


def test_a_label_says_how_long_in_seconds() -> None:
    assert sleep(timedelta(days=20, seconds=1)).label == "sleep 1728001 s"
    assert verdict.wait().label == "wait for verdict"


@pytest.mark.parametrize(
    "bad", [-1, -1e-9, NAN, INF, -INF, 1e30, 10**400, True, "5", None, timedelta.max]
)
def test_a_sleep_is_a_time(bad: Any) -> None:
    with refused("sleep: duration is .*; give"):
        sleep(bad)
    if isinstance(bad, timedelta):
        with refused("sleep: duration is"):
            Sleep(bad)


@pytest.mark.parametrize("bad", [0, -1, 1e-9, NAN, INF, 1e30, True, "5", timedelta(0)])
def test_patience_is_a_time_above_nothing(bad: Any) -> None:
    with refused("wait for 'verdict': within is .*; give"):
        verdict.wait(within=bad)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", ".", "x" * 101, None, 7, b"a"])
def test_a_signal_needs_a_name(name: Any) -> None:
    with refused("signal name .*: use 1 to 100 letters"):
        Signal(name, Verdict)


@pytest.mark.parametrize(
    "model", [None, 7, "Verdict", Verdict(True), [int], (int, str), Sleep, Primitive, lambda: 1]
)
def test_a_signal_needs_a_type_for_its_payload(model: Any) -> None:
    with refused("signal 'verdict': the model of its payload is a type, not"):
        _signal("verdict", model)


def test_only_a_signal_can_be_waited_for() -> None:
    with refused("what is waited for is a Signal, not 'verdict'"):
        _wait("verdict")


def test_a_signal_is_no_part_of_a_flow_until_it_is_waited_for() -> None:
    async def act(value: Any, ctx: Any) -> Any:
        return value

    made: Any = step(act)
    with refused(r"verdict is a signal; to wait for it say verdict\.wait\(within=\.\.\.\)"):
        made >> verdict

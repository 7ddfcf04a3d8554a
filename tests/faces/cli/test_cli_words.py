"""A sentence for everything that can happen, in words and never as code."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.events import EVENT_TYPES, Event, Failure, Json
from orchestrator.faces.cli.words import BRIEF, WORDS, sentence
from tests.domain.test_state import SAMPLES
from tests.spec import START

TOLD = {"step", "name", "signal", "route", "actor", "reason", "problem", "child_id", "answer", "by"}
"""Fields whose value a reader wants to see as it is."""

SPELLED = {"answer"}

FULL: dict[str, Any] = {
    "actor": "ann", "reason": "why not", "key": "k-1", "cost": 2.5, "attempt": 3, "due_at": START,
    "deadline": START, "parent": "p-1", "scope": "s/1", "passed": ("s/2", "s/3"), "cut": True,
    "running": ("s/1", "s/2", "s/3", "s/4"), "again": True, "holds": True, "in_doubt": True,
    "output": Json('{"a":1}'), "input": Json('{"b":1}'), "answer": "happened",
}  # fmt: skip
CODE = re.compile(r"None|True|False|\w+\(\w*=|datetime|<\w|StepStarted|\(\)|\('")


def full(event: Event) -> Event:
    """*event* with everything in it that may be left out."""
    there = {field.name for field in fields(event)}
    return replace(event, **{name: value for name, value in FULL.items() if name in there})


def test_there_is_a_sentence_for_every_type_of_event() -> None:
    assert set(EVENT_TYPES.values()) == set(WORDS), "see orchestrator/faces/cli/words.py"


@pytest.mark.parametrize("event", SAMPLES.values(), ids=lambda event: type(event).__name__)
def test_it_is_a_sentence_and_names_who_and_what(event: Event) -> None:
    for one in (event, full(event)):
        said = sentence(one)
        assert " " in said
        assert not CODE.search(said), said
        for field in fields(one):
            value = getattr(one, field.name)
            if field.name in TOLD - SPELLED:
                assert str(value) in said, (field.name, said)


@pytest.mark.parametrize("event", SAMPLES.values(), ids=lambda event: type(event).__name__)
def test_it_is_one_line_of_a_bounded_length_whatever_the_payload(event: Event) -> None:
    there = {field.name for field in fields(event)}
    long = {"output", "input", "payload", "reason", "problem"} & there
    huge = replace(event, **dict.fromkeys(long, "x" * 100_000))
    if "failure" in there:
        huge = replace(huge, failure=Failure("Error", "y" * 100_000))
    said = sentence(huge)
    assert len(said) < 4 * BRIEF
    assert "…" in said or said == sentence(event)


def test_no_two_types_say_the_same() -> None:
    assert len({sentence(event) for event in SAMPLES.values()}) == len(SAMPLES)


HALTED = Failure("Halted", "not begun, because the saga turned round")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (ev.StepSucceeded("s/0", "pay", 2, Json("7"), 1.5), "pay gave 7 (attempt 2), at a cost of 1.5"),
        (ev.ProbeAnswered("s/0", "pay", 1, "happened", Json("7")), "the probe of pay says that it happened: 7"),
        (ev.ProbeAnswered("s/0", "pay", 1, "not_happened"), "the probe of pay says that it did not happen"),
        (ev.ProbeAnswered("s/0", "pay", 1, "failed", None, HALTED), f"the probe of pay failed: {HALTED.message}"),
        (ev.ItemFailed("s/1", 4, HALTED), "item 4 of s/1 was not begun, because the saga turned round"),
        (ev.WaitEnded("s/1", "go", HALTED), "the signal go is not waited for any more: the saga turned round"),
        (ev.StepRetried("s", "a", "ann", "", 1, again=True), "ann had a run again"),
        (ev.StepResolved("s", "a", False, "", "", 1), "somebody found out that a did not happen"),
        (ev.ChildEnded("s/1", "c-1", "refused", None, Failure("E", "no")), "child c-1 could not be started: E: no"),
        (ev.SagaStuck("", "", "ten claims"), "the saga is stuck, a person is needed: ten claims"),
        (ev.BranchesHalted("s", tuple("abcde")), "nothing new begins at s; a, b, c and 2 more may be under way"),
        (ev.DeadlinePassed("", ()), "the deadline of the saga has passed"),
        (ev.CompensationStarted("pay failed", Failure("E", "no")), "the saga turns round: pay failed (E: no)"),
        (ev.CompensationStarted("pay failed: E: no", Failure("E", "no")), "the saga turns round: pay failed: E: no"),
    ],
)  # fmt: skip
def test_it_says_what_is_special(event: Event, said: str) -> None:
    assert sentence(event) == said

"""What the history says of commands and replies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.domain import events as ev
from orchestrator.domain.events import Event, Failure, Json
from orchestrator.faces.cli.words import sentence

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def asked(intent: str, attempt: int = 1) -> Event:
    return ev.RemoteRequested(
        "s/0", "charge", attempt, intent, "payments.charge", "bank", "id/s/0", Json("5"), NOON
    )


def replied(intent: str, answer: str, output: str | None = None) -> Event:
    failure = None if output else Failure("Declined", "no money")
    json = Json(output) if output else None
    return ev.RemoteReplied(
        "s/0", "charge", 1, intent, answer, "participant bank", 1, json, failure
    )


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (asked("do"), "charge is asked for as payments.charge through bank"),
        (asked("do", 2), "through bank (attempt 2), and replied to until"),
        (asked("undo"), "the undo of charge is asked for as payments.charge"),
        (asked("probe"), "the participant behind bank is asked whether charge happened"),
        (replied("do", "succeeded", "7"), "participant bank replied to charge, succeeded: 7"),
        (replied("undo", "failed"), "replied to the undo of charge, failed: Declined: no money"),
        (replied("probe", "not_happened"), "the question about charge, not happened"),
    ],
)
def test_a_sentence_says_who_asks_whom_for_what(event: Event, words: str) -> None:
    assert words in sentence(event)

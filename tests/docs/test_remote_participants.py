"""The program on the page about remote participants is run; its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from orchestrator.adapters.kafka.commands import _ANSWERS, command_of, read_command, reply_record
from orchestrator.domain.events import Json
from orchestrator.domain.exchange import RemoteCommand, RemoteReply
from orchestrator.messaging import Participant
from orchestrator.ports import FeedEvent
from tests.docs.pages import DOCS, Page, loaded
from tests.feed_events import feed_event

PAGE = Page(DOCS / "remote-participants.md")
KEY = "0190aaaa-0000-7000-8000-000000000000/order/1"


def asked() -> FeedEvent:
    """A command as the feed holds it."""
    data = (
        '{"step":"pay","intent":"do","command":"payments.charge","topic":"payments.commands",'
        f'"command_id":"{KEY}","payload":1.10,"due_at":"2026-01-01T00:00:00+00:00","undoes":"x"}}'
    )
    return feed_event("0190aaaa-0000-7000-8000-000000000000", 4, data=data, type_="RemoteRequested")


async def test_the_service_on_the_page_charges_and_refunds_once(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMENTS_DATABASE_URL", empty_dsn)
    monkeypatch.setenv("SAGA_KAFKA_BOOTSTRAP_SERVERS", "localhost:1")
    charge = RemoteCommand(KEY, "do", "payments.charge", 1, Json("5"), "r")
    refund = RemoteCommand(f"{KEY}/undo", "undo", "payments.refund", 2, Json(f'"{KEY}"'), "r")
    side = await asyncpg.connect(empty_dsn)
    with loaded(PAGE, tmp_path) as example:
        participant: Participant = example.module.participant
        await side.execute("CREATE TABLE payment (id text, cents int)")
        await participant.open()
        try:
            for _ in range(2):
                assert (await participant.handle(charge)).output == f'"{KEY}"'
            assert await side.fetchval("SELECT count(*) FROM payment") == 1
            assert (await participant.handle(refund)).answer == "succeeded"
            assert await side.fetchval("SELECT count(*) FROM payment") == 0
        finally:
            await participant.close()
            await side.close()


def test_a_command_goes_to_its_topic_and_has_the_headers_on_the_page() -> None:
    record = command_of(asked(), "saga.replies")
    assert record is not None
    assert (record.topic, record.value) == ("payments.commands", b"1.10")
    assert record.key.decode() == KEY.partition("/")[0]
    headers = {name for name, _ in record.headers}
    rows = PAGE.rows("The contract")
    told = {row[0].strip("`") for row in rows if len(row) == 2}
    assert told <= headers
    command = read_command(record.value, record.headers)
    assert (command.command_id, command.reply_to) == (KEY, "saga.replies")


def test_every_answer_stands_on_the_page_and_a_reply_echoes_the_command() -> None:
    rows = PAGE.rows("The contract")
    told = {word for row in rows if len(row) == 3 for word in re.findall(r"`(\w+)`", row[0])}
    assert told == _ANSWERS
    command = RemoteCommand(KEY, "probe", "payments.charge", 7, Json("5"), "r")
    reply = RemoteReply(KEY, "probe", 7, "busy", participant="payments")
    headers = dict(reply_record(command, reply).headers)
    assert headers["number"] == b"7"
    assert headers["intent"] == b"probe"
    assert headers["participant"] == b"payments"

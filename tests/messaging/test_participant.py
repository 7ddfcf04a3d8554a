"""The participant kit: one effect for each command, whatever comes twice, late, or the wrong way round."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from orchestrator import DefinitionError, Permanent, Retryable
from orchestrator.domain.events import Json
from orchestrator.domain.exchange import RemoteCommand, RemoteReply
from orchestrator.errors import BusyError, UnavailableError
from orchestrator.messaging import CommandContext, Participant

KEY = "0190aaaa-0000-7000-8000-000000000000/order/1"
CHARGE = RemoteCommand(KEY, "do", "charge", 1, Json("5"), "saga.replies")
REFUND = RemoteCommand(f"{KEY}/undo", "undo", "refund", 2, Json("5"), "saga.replies")
IN_DOUBT = replace(REFUND, undoes=KEY)
PROBE = replace(CHARGE, intent="probe", number=2)


class Desk:
    """One participant over a database of its own, and what it did."""

    def __init__(self, participant: Participant, side: asyncpg.Connection[Any]) -> None:
        self.participant = participant
        self._side = side
        self.raises: Exception | None = None
        self.refund_raises: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.inside = asyncio.Event()
        self.calls = 0
        self.calm = False

    async def take(self, command: RemoteCommand) -> RemoteReply:
        return await self.participant.handle(command)

    async def effects(self, what: str = "charge") -> int:
        count: int = await self._side.fetchval("SELECT count(*) FROM effect WHERE what = $1", what)
        return count

    async def end_sessions(self) -> int:
        """End the participant's sessions at the server; how many there were."""
        ended = await self._side.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'participant%' AND datname = current_database()"
        )
        return len(ended)

    def declare(self) -> None:
        @self.participant.command("charge", input=int, output=str)
        async def charge(cents: int, ctx: CommandContext, db: asyncpg.Connection[Any]) -> str:
            await db.execute("INSERT INTO effect VALUES ($1, $2)", "charge", ctx.idempotency_key)
            self.calls += 1
            self.inside.set()
            if self.gate is not None:
                await self.gate.wait()
            if self.raises is not None:
                raise self.raises
            return f"paid {cents}"

        @self.participant.command("refund", input=int, output=type(None))
        async def refund(cents: int, ctx: CommandContext, db: AsyncSession) -> None:
            await db.execute(
                text("INSERT INTO effect VALUES ('refund', :key)"), {"key": ctx.idempotency_key}
            )
            self.calls += 1
            self.inside.set()
            if self.gate is not None:
                await self.gate.wait()
            if self.refund_raises is not None:
                raise self.refund_raises

        @self.participant.command("count", input=type(None), output=int)
        async def count(_: None, ctx: CommandContext, db: AsyncConnection) -> int:
            return int((await db.execute(text("SELECT count(*) FROM effect"))).scalar_one())

        @self.participant.command("echo", input=int, output=int)
        async def echo(n: int, ctx: CommandContext) -> int:
            return n

        @self.participant.command("limits", input=int, output=str)
        async def limits(_: int, ctx: CommandContext, db: asyncpg.Connection[Any]) -> str:
            names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
            return " ".join([str(await db.fetchval(f"SHOW {name}")) for name in names])

        @self.participant.command("troubled", input=str, output=type(None))
        async def troubled(state: str, ctx: CommandContext, db: AsyncSession) -> None:
            if not self.calm:
                await db.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"))


def behave_badly(participant: Participant) -> None:
    """Declare handlers that should not be written so."""
    insert = "INSERT INTO effect VALUES ('hang', '')"

    @participant.command("hang", input=int, output=str)
    async def hang(_: int, ctx: CommandContext, db: asyncpg.Connection[Any]) -> str:
        await db.execute(insert)
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    @participant.command("hang_on", input=int, output=str)
    async def hang_on(_: int, ctx: CommandContext, db: AsyncConnection) -> str:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await db.execute(text(insert))

    @participant.command("hang_in_sql", input=int, output=str)
    async def hang_in_sql(_: int, ctx: CommandContext, db: AsyncSession) -> str:
        await db.execute(text(insert))
        await db.execute(text("SELECT pg_sleep(60)"))
        raise AssertionError("nobody waits so long")

    @participant.command("cancelled", input=int, output=str)
    async def cancelled(_: int, ctx: CommandContext) -> str:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task
        raise AssertionError("it was cancelled")

    @participant.command("commits", input=int, output=str)
    async def commits(_: int, ctx: CommandContext, db: AsyncConnection) -> str:
        await db.execute(text(insert))
        await db.commit()
        return "done"

    @participant.command("commits_by_sql", input=int, output=str)
    async def commits_by_sql(_: int, ctx: CommandContext, db: asyncpg.Connection[Any]) -> str:
        await db.execute(insert)
        await db.execute("COMMIT")
        return "done"


@pytest.fixture
async def desk(empty_dsn: str) -> AsyncIterator[Desk]:
    side = await asyncpg.connect(empty_dsn)
    await side.execute("CREATE TABLE effect (what text, key text)")
    participant = Participant(
        "shop", topics=("shop.commands",), database_url=empty_dsn, kafka="localhost:1"
    )
    made = Desk(participant, side)
    made.declare()
    await participant.open()
    try:
        yield made
    finally:
        await participant.close()
        await side.close()


@pytest.fixture
async def hasty(desk: Desk, empty_dsn: str) -> AsyncIterator[Participant]:
    """One whose handlers get half a second."""
    participant = Participant(
        "hasty", topics=("t",), database_url=empty_dsn, kafka="localhost:1", handler_timeout=0.5
    )
    behave_badly(participant)
    await participant.open()
    try:
        yield participant
    finally:
        await participant.close()


async def test_a_role_that_may_create_nothing_uses_the_table_that_is_there(
    desk: Desk, empty_dsn: str
) -> None:
    """As services have it whose migrations make their tables."""
    side = await asyncpg.connect(empty_dsn)
    await side.execute("CREATE ROLE till LOGIN PASSWORD 'till'")
    try:
        await side.execute("GRANT SELECT, INSERT, UPDATE ON participant_command TO till")
        own = re.sub("//[^@]*@", "//till:till@", empty_dsn)
        participant = Participant("till", topics=("t",), database_url=own, kafka="localhost:1")
        await participant.open()
        try:
            reply = await participant.handle(replace(CHARGE, command="nobody knows it"))
            assert reply.answer == "failed"
        finally:
            await participant.close()
    finally:
        await side.execute("DROP OWNED BY till; DROP ROLE till")
        await side.close()


async def test_a_pooler_that_shares_sessions_may_stand_before_the_database(
    pooled_dsn: str,
) -> None:
    participant = Participant("p", topics=("t",), database_url=pooled_dsn, kafka="localhost:1")

    @participant.command("limits", input=int, output=str)
    async def limits(n: int, ctx: CommandContext, db: asyncpg.Connection[Any]) -> str:
        await db.fetchval("SELECT $1::int", n)
        return str(await db.fetchval("SHOW idle_in_transaction_session_timeout"))

    await participant.open()
    try:
        commands = [replace(CHARGE, command="limits", command_id=f"{KEY}/{n}") for n in range(40)]
        replies = await asyncio.gather(*map(participant.handle, commands))
        assert {reply.output for reply in replies} == {'"35s"'}
    finally:
        await participant.close()


# ---------------------------------------------------------------------------- once


async def test_a_command_has_its_effect_once_however_often_it_comes(desk: Desk) -> None:
    first = await desk.take(CHARGE)
    again = [await desk.take(replace(CHARGE, number=number)) for number in (1, 1, 2)]
    assert (first.answer, first.output) == ("succeeded", '"paid 5"')
    assert [(reply.answer, reply.output) for reply in again] == [("succeeded", '"paid 5"')] * 3
    assert await desk.effects() == 1


async def test_two_that_get_the_same_command_at_once_apply_it_once(desk: Desk) -> None:
    replies = await asyncio.gather(*(desk.take(CHARGE) for _ in range(8)))
    assert {reply.output for reply in replies} == {'"paid 5"'}
    assert await desk.effects() == 1


async def test_each_kind_of_handle_is_in_the_transaction_of_the_command(desk: Desk) -> None:
    await desk.take(CHARGE)
    assert (await desk.take(REFUND)).answer == "succeeded"
    counted = RemoteCommand("a/b", "do", "count", 1, Json("null"), "r")
    assert (await desk.take(counted)).output == "2"
    echoed = RemoteCommand("a/c", "do", "echo", 1, Json("7"), "r")
    assert (await desk.take(echoed)).output == "7"


# ---------------------------------------------------------------------------- failure words


@pytest.mark.parametrize(
    ("error", "permanent", "after"),
    [(Permanent("no"), True, None), (Retryable("busy", after=7), False, 7.0),
     (RuntimeError("broken"), False, None)],
)  # fmt: skip
async def test_what_raises_leaves_nothing_behind_and_says_why(
    desk: Desk, error: Exception, permanent: bool, after: float | None
) -> None:
    desk.raises = error
    reply = await desk.take(CHARGE)
    assert reply.answer == "failed"
    assert reply.failure is not None
    assert (reply.failure.type, reply.failure.permanent) == (type(error).__name__, permanent)
    assert reply.failure.retry_after == after
    assert await desk.effects() == 0


async def test_what_a_handler_did_not_mean_to_raise_is_in_the_log_of_its_service(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.raises = Permanent("no")
    await desk.take(CHARGE)
    assert not caplog.records
    desk.raises = KeyError("cents")
    await desk.take(replace(CHARGE, number=2))
    [told] = caplog.records
    assert told.getMessage() == f"command charge ({KEY}) failed"
    assert told.exc_info is not None


async def test_a_refused_command_that_comes_again_late_is_refused_again(desk: Desk) -> None:
    desk.raises = Permanent("no")
    await desk.take(CHARGE)
    desk.raises = None
    assert (await desk.take(CHARGE)).answer == "failed"
    assert await desk.effects() == 0


async def test_the_next_attempt_of_a_refused_command_is_carried_out(desk: Desk) -> None:
    desk.raises = Retryable("busy")
    await desk.take(CHARGE)
    desk.raises = None
    assert (await desk.take(replace(CHARGE, number=2))).answer == "succeeded"
    assert await desk.effects() == 1


async def test_a_payload_of_another_type_is_refused_for_good(desk: Desk) -> None:
    reply = await desk.take(replace(CHARGE, payload=Json('"five"')))
    assert reply.answer == "failed"
    assert reply.failure is not None


async def test_a_command_that_nobody_knows_is_refused_and_names_those_there_are(desk: Desk) -> None:
    reply = await desk.take(replace(CHARGE, command="chrage"))
    assert reply.failure is not None
    assert "no command 'chrage'; it has: charge, refund" in reply.failure.message


async def test_a_handler_that_does_not_know_itself_leaves_the_command_in_doubt(desk: Desk) -> None:
    desk.raises = TimeoutError("the bank did not answer")
    assert (await desk.take(CHARGE)).answer == "in_doubt"
    assert (await desk.take(PROBE)).answer == "unknown"
    desk.raises = None
    assert (await desk.take(replace(CHARGE, number=3))).answer == "succeeded"


async def test_a_command_in_doubt_that_comes_again_late_does_nothing(desk: Desk) -> None:
    """Whoever sent it may have decided by now that it did not happen."""
    desk.raises = TimeoutError("the bank did not answer")
    await desk.take(CHARGE)
    desk.raises = None
    assert (await desk.take(CHARGE)).answer == "in_doubt"
    assert await desk.effects() == 0


async def test_a_later_refusal_does_not_settle_an_attempt_in_doubt(desk: Desk) -> None:
    desk.raises = TimeoutError("the bank did not answer")
    await desk.take(CHARGE)
    desk.raises = Retryable("the bank is busy")
    assert (await desk.take(replace(CHARGE, number=2))).answer == "in_doubt"
    assert (await desk.take(replace(PROBE, number=3))).answer == "unknown"
    undo = await desk.take(replace(IN_DOUBT, number=4))
    assert (undo.answer, await desk.effects("refund")) == ("succeeded", 1)


async def test_an_undo_of_what_is_in_doubt_that_fails_is_carried_out_when_it_comes_again(
    desk: Desk,
) -> None:
    desk.raises = TimeoutError("the bank did not answer")
    await desk.take(CHARGE)
    desk.refund_raises = Retryable("the bank is busy")
    assert (await desk.take(IN_DOUBT)).answer == "failed"
    desk.raises = desk.refund_raises = None
    assert (await desk.take(replace(IN_DOUBT, number=3))).answer == "succeeded"
    assert await desk.effects("refund") == 1
    assert (await desk.take(replace(CHARGE, number=9))).answer == "failed"
    assert await desk.effects() == 0


async def test_an_undo_in_doubt_and_the_same_undo_without_doubt_at_once_are_one(
    desk: Desk,
) -> None:
    await desk.take(CHARGE)
    desk.gate = asyncio.Event()
    desk.inside.clear()
    one = asyncio.create_task(desk.take(IN_DOUBT))
    await asyncio.wait_for(desk.inside.wait(), 10)
    two = asyncio.create_task(desk.take(replace(REFUND, number=3)))
    await asyncio.wait({two}, timeout=0.5)
    desk.gate.set()
    assert [(await task).answer for task in (one, two)] == ["succeeded"] * 2
    assert await desk.effects("refund") == 1


# ---------------------------------------------------------------------------- read again


@pytest.mark.parametrize("seed", range(40))
async def test_what_was_read_and_is_read_again_calls_no_handler(desk: Desk, seed: int) -> None:
    """From any point on, as after a crash; meanwhile handlers would do what they did not do before."""
    chance = random.Random(seed)
    sent: list[RemoteCommand] = []
    for number in range(1, 9):
        command = replace(chance.choice((CHARGE, CHARGE, PROBE, IN_DOUBT, REFUND)), number=number)
        outcomes = (None, Permanent("no"), Retryable("busy"), TimeoutError("the bank is silent"))
        desk.raises, desk.refund_raises = chance.choice(outcomes), chance.choice(outcomes)
        await desk.take(command)
        sent.append(command)
    desk.raises = desk.refund_raises = None
    calls = desk.calls
    for _ in range(3):
        for command in sent[chance.randrange(len(sent)) :]:
            await desk.take(command)
    assert desk.calls == calls


@pytest.mark.parametrize("command", [CHARGE, REFUND], ids=["asyncpg", "sqlalchemy"])
async def test_a_database_that_goes_away_under_a_handler_is_no_answer(
    desk: Desk, command: RemoteCommand
) -> None:
    what = command.command
    desk.gate = asyncio.Event()
    running = asyncio.create_task(desk.take(command))
    await asyncio.wait_for(desk.inside.wait(), 10)
    assert await desk.end_sessions() > 0
    desk.gate.set()
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(running, 10)
    assert await desk.effects(what) == 0
    async with asyncio.timeout(10):
        assert (await desk.take(command)).answer == "succeeded"
    assert await desk.effects(what) == 1


@pytest.mark.parametrize("state", ["40001", "40P01", "53200"])
async def test_a_database_that_is_busy_fails_no_command(desk: Desk, state: str) -> None:
    """A deadlock, or a conflict of two transactions: to do it again is all that is needed."""
    troubled = replace(CHARGE, command="troubled", payload=Json(f'"{state}"'))
    with pytest.raises(BusyError):
        await desk.take(troubled)
    desk.calm = True
    assert (await desk.take(troubled)).answer == "succeeded"


# ---------------------------------------------------------------------------- bad manners


async def test_a_handler_that_does_not_end_leaves_its_command_in_doubt(
    desk: Desk, hasty: Participant
) -> None:
    for command in ("hang", "hang_on", "hang_in_sql"):
        stuck = replace(CHARGE, command=command, command_id=f"{KEY}/{command}")
        reply = await asyncio.wait_for(hasty.handle(stuck), 10)
        assert reply.failure is not None, command
        assert (reply.answer, reply.failure.type) == ("in_doubt", "TimeoutError"), command
        assert "took longer than 0.5 s" in reply.failure.message
        assert (await hasty.handle(stuck)).answer == "in_doubt", command
    assert await desk.effects("hang") == 0


async def test_a_handler_may_take_longer_than_a_transaction_may_rest(
    desk: Desk, hasty: Participant
) -> None:
    """The server ends transactions in which nobody says anything."""
    limits = replace(CHARGE, command="limits")
    found = await desk.participant.handle(limits)
    assert found.output == '"35s 35s 35s"', "longer than a handler may take"


async def test_a_handler_whose_work_was_cancelled_by_others_does_not_end_the_caller(
    hasty: Participant,
) -> None:
    reply = await hasty.handle(replace(CHARGE, command="cancelled"))
    assert reply.answer == "in_doubt"


@pytest.mark.parametrize("how", ["commits", "commits_by_sql"])
async def test_a_handler_that_ends_the_transaction_leaves_its_command_in_doubt(
    desk: Desk, hasty: Participant, how: str
) -> None:
    """What it wrote is there, so it is not told as a failure, after which it would be done again."""
    reply = await hasty.handle(replace(CHARGE, command=how))
    assert reply.failure is not None
    assert reply.answer == "in_doubt"
    assert "ended the transaction" in reply.failure.message
    assert (await hasty.handle(PROBE)).answer == "unknown"


# ---------------------------------------------------------------------------- the wrong way round


async def test_an_undo_in_doubt_before_its_command_makes_the_command_void(desk: Desk) -> None:
    assert (await desk.take(IN_DOUBT)).answer == "succeeded"
    assert await desk.effects("refund") == 0
    late = await desk.take(CHARGE)
    assert (late.answer, late.failure and late.failure.type) == ("failed", "Void")
    much_later = await desk.take(replace(CHARGE, number=9))
    assert much_later.answer == "failed"
    assert await desk.effects() == 0


async def test_an_undo_in_doubt_takes_back_what_did_happen(desk: Desk) -> None:
    await desk.take(CHARGE)
    replies = [await desk.take(IN_DOUBT) for _ in range(3)]
    assert {reply.answer for reply in replies} == {"succeeded"}
    assert await desk.effects("refund") == 1


async def test_an_undo_of_what_failed_takes_nothing_back(desk: Desk) -> None:
    desk.raises = Permanent("no")
    await desk.take(CHARGE)
    assert (await desk.take(IN_DOUBT)).answer == "succeeded"
    assert await desk.effects("refund") == 0


async def test_a_command_and_its_undo_at_once_leave_nothing_standing(desk: Desk) -> None:
    for turn in range(20):
        key = f"{KEY}/{turn}"
        charge = replace(CHARGE, command_id=key)
        refund = replace(IN_DOUBT, command_id=f"{key}/undo", undoes=key)
        await asyncio.gather(desk.take(refund), desk.take(charge), desk.take(refund))
    assert await desk.effects("charge") == await desk.effects("refund")


# ---------------------------------------------------------------------------- probes


async def test_a_probe_tells_what_happened_and_with_what_output(desk: Desk) -> None:
    await desk.take(CHARGE)
    reply = await desk.take(PROBE)
    assert (reply.answer, reply.output) == ("happened", '"paid 5"')


async def test_what_a_probe_says_did_not_happen_does_not_happen_late(desk: Desk) -> None:
    assert (await desk.take(PROBE)).answer == "not_happened"
    late = await desk.take(CHARGE)
    assert (late.answer, late.failure and late.failure.type) == ("failed", "Refused")
    assert await desk.effects() == 0


async def test_what_is_sent_after_the_probe_is_carried_out(desk: Desk) -> None:
    await desk.take(PROBE)
    assert (await desk.take(replace(CHARGE, number=3))).answer == "succeeded"


async def test_an_old_probe_that_comes_again_lets_no_later_refusal_be_forgotten(
    desk: Desk,
) -> None:
    """After a crash all that was read since the last commit is read again, in order."""
    await desk.take(PROBE)
    third = replace(CHARGE, number=3)
    desk.raises = Retryable("busy")
    assert (await desk.take(third)).answer == "failed"
    desk.raises = None
    again = [await desk.take(command) for command in (CHARGE, PROBE, third)]
    assert [reply.answer for reply in again] == ["failed", "not_happened", "failed"]
    assert await desk.effects() == 0


async def test_a_probe_does_not_wait_for_a_command_that_still_runs(desk: Desk) -> None:
    desk.gate = asyncio.Event()
    running = asyncio.create_task(desk.take(CHARGE))
    await asyncio.wait_for(desk.inside.wait(), 10)
    assert (await asyncio.wait_for(desk.take(PROBE), 10)).answer == "busy"
    desk.gate.set()
    assert (await running).answer == "succeeded"
    assert (await desk.take(PROBE)).answer == "happened"


# ---------------------------------------------------------------------------- what is refused


def test_a_command_has_one_handler_with_a_handle_that_can_be_given() -> None:
    participant = Participant("p", topics=("t",), database_url="postgresql://x", kafka="k:1")

    async def one(n: int, ctx: CommandContext) -> int:
        return n

    async def strange(n: int, ctx: CommandContext, db: dict[str, int]) -> int:
        return n

    def plain(n: int, ctx: CommandContext) -> int:
        return n

    declare: Any = participant.command("one", input=int, output=int)
    declare(one)
    with pytest.raises(DefinitionError, match="has a handler already"):
        declare(one)
    other: Any = participant.command("other", input=int, output=int)
    with pytest.raises(DefinitionError, match="annotate db"):
        other(strange)
    with pytest.raises(DefinitionError, match="async function"):
        other(plain)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"handler_timeout": 0}])
def test_a_participant_that_could_never_do_anything_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="participant 'p'"):
        Participant("p", topics=("t",), database_url="postgresql://x", kafka="k:1", **wrong)


@pytest.mark.parametrize("topics", ["payments.commands", ()])
def test_topics_are_a_tuple_of_names(topics: Any) -> None:
    with pytest.raises(DefinitionError, match="topics is a tuple of names"):
        Participant("p", topics=topics, database_url="postgresql://x", kafka="k:1")

"""Every cell of the table of answers: what becomes of a message, by where its instance stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from orchestrator.adapters import answers
from orchestrator.domain.events import ENDED, Status
from orchestrator.ports import REPAIRS, Claim, Instance, MessageKind, Reply, Store
from tests.contract.given import ORDER, Given

HOUR = timedelta(hours=1)
YES, NO, LATE, STUCK = Reply.ACCEPTED, Reply.NOT_STUCK, Reply.TOO_LATE, Reply.STUCK

# In the order of MessageKind:
# cancel, signal, terminate, resume, retry, skip, resolve, child, undo, reply
LIVE = (YES, YES, YES, NO, NO, NO, NO, YES, NO, YES)
PIVOTED = (LATE, YES, YES, NO, NO, NO, NO, YES, NO, YES)
TABLE = {
    (Status.PENDING, False): LIVE,
    (Status.RUNNING, False): LIVE,
    (Status.WAITING, False): LIVE,
    (Status.PENDING, True): PIVOTED,
    (Status.RUNNING, True): PIVOTED,
    (Status.WAITING, True): PIVOTED,
    (Status.COMPENSATING, False): LIVE,
    (Status.COMPENSATING, True): LIVE,
    (Status.STUCK, False): (STUCK, YES, YES, YES, YES, YES, YES, YES, STUCK, YES),
    (Status.STUCK, True): (STUCK, YES, YES, YES, YES, YES, YES, YES, STUCK, YES),
    (Status.COMPLETED, False): (LATE,) * 8 + (YES, LATE),
    (Status.COMPLETED, True): (LATE,) * 8 + (YES, LATE),
    (Status.COMPENSATED, False): (LATE,) * 10,
    (Status.COMPENSATED, True): (LATE,) * 10,
    (Status.TERMINATED, False): (LATE,) * 10,
    (Status.TERMINATED, True): (LATE,) * 10,
}
FREED = {(Status.STUCK, kind) for kind in (*REPAIRS, MessageKind.TERMINATE)} | {
    (Status.COMPLETED, MessageKind.UNDO)
}
AT_REST = ENDED | {Status.STUCK}


@dataclass(frozen=True, slots=True)
class Desk:
    """Instances that stand where a test wants them, and messages to them."""

    store: Store
    given: Given
    owner: str

    async def put(self, status: Status, *, pivoted: bool = False, keep: bool = False) -> Claim:
        """An instance at *status* after one event; due in an hour where it is not at rest."""
        [saga_id] = await self.given.started()
        claims = await self.store.queue.claim(self.owner, 1000, [ORDER])
        [claim] = [claim for claim in claims if claim.saga_id == saga_id]
        due_at = None if status in AT_REST else self.store.clock.now() + HOUR
        append = self.given.append(self.owner, claim, status=status, due_at=due_at, keep=keep)
        assert await self.store.events.append([replace(append, pivoted=pivoted)])
        return claim

    async def send(self, saga_id: str, kind: str, key: str = "k") -> Reply:
        return await self.store.inbox.send(saga_id, kind, {"n": 1}, actor="ann", dedupe_key=key)

    async def row(self, saga_id: str) -> Instance:
        found = await self.store.reads.get(saga_id)
        assert found is not None
        return found

    async def stored(self, saga_id: str) -> list[str]:
        return [message.kind for message in await self.store.inbox.read(saga_id, 0)]

    async def is_claimed(self, saga_id: str) -> Claim | None:
        claims = await self.store.queue.claim(self.owner, 1000, [ORDER])
        return next((claim for claim in claims if claim.saga_id == saga_id), None)


@pytest.fixture
async def desk(store: Store, given: Given) -> Desk:
    return Desk(store, given, await given.worker())


def test_the_table_has_a_cell_for_every_status_and_kind() -> None:
    assert set(TABLE) == {(status, pivoted) for status in Status for pivoted in (False, True)}
    assert {len(row) for row in TABLE.values()} == {len(MessageKind)}


@pytest.mark.parametrize(("status", "pivoted"), list(TABLE))
async def test_every_message_gets_the_answer_of_the_table(
    desk: Desk, status: Status, pivoted: bool
) -> None:
    for kind, expected in zip(MessageKind, TABLE[status, pivoted], strict=True):
        saga_id = (await desk.put(status, pivoted=pivoted)).saga_id
        before = await desk.row(saga_id)

        assert await desk.send(saga_id, kind) is expected, kind

        now, after = desk.store.clock.now() + timedelta(seconds=1), await desk.row(saga_id)
        if expected is not Reply.ACCEPTED:
            assert await desk.stored(saga_id) == [], kind
            assert after == before, kind
        elif (status, kind) in FREED:
            assert await desk.stored(saga_id) == [kind]
            assert (after.status, after.owner) == (Status.WAITING, None), kind
            assert after.due_at is not None, kind
            assert after.due_at <= now, kind
        elif status is Status.STUCK:
            assert await desk.stored(saga_id) == [kind]
            assert after == before, kind
            assert await desk.is_claimed(saga_id) is None, kind
        else:
            assert await desk.stored(saga_id) == [kind]
            assert after.status is status, kind
            assert after.due_at is not None, kind
            assert after.due_at <= now, kind


@pytest.mark.parametrize("status", list(Status))
async def test_a_known_key_is_a_duplicate_wherever_the_instance_stands_now(
    desk: Desk, status: Status
) -> None:
    claim = await desk.put(Status.RUNNING, keep=True)
    assert await desk.send(claim.saga_id, MessageKind.SIGNAL) is Reply.ACCEPTED
    append = desk.given.append(desk.owner, claim, head=1, status=status, keep=False)
    assert await desk.store.events.append([append])
    before = await desk.row(claim.saga_id)

    for kind in MessageKind:
        assert await desk.send(claim.saga_id, kind) is Reply.DUPLICATE, kind

    assert await desk.stored(claim.saga_id) == [MessageKind.SIGNAL]
    assert await desk.row(claim.saga_id) == before


@pytest.mark.parametrize(
    ("status", "kind"),
    [(Status.STUCK, MessageKind.RETRY), (Status.COMPLETED, MessageKind.UNDO)],
)
async def test_an_instance_that_was_freed_is_claimed_and_goes_on(
    desk: Desk, status: Status, kind: MessageKind
) -> None:
    old = await desk.put(status)
    await desk.send(old.saga_id, kind)

    claim = await desk.is_claimed(old.saga_id)

    assert claim is not None
    assert (claim.status, claim.head, claim.inbox_seq) == (Status.WAITING, 1, 1)
    late = desk.given.append(desk.owner, old, head=1)
    assert await desk.store.events.append([late]) == {}
    append = desk.given.append(
        desk.owner, claim, status=Status.COMPENSATED, keep=False, inbox_seen=1
    )
    assert await desk.store.events.append([append]) == {old.saga_id: 1}
    assert (await desk.row(old.saga_id)).status is Status.COMPENSATED
    assert await desk.send(old.saga_id, kind, "k2") is Reply.TOO_LATE


@pytest.mark.parametrize(
    ("status", "kind", "second"),
    [
        (Status.STUCK, MessageKind.RETRY, Reply.NOT_STUCK),
        (Status.STUCK, MessageKind.TERMINATE, Reply.ACCEPTED),
        (Status.COMPLETED, MessageKind.UNDO, Reply.NOT_STUCK),
    ],
)
async def test_the_second_of_two_finds_an_instance_that_moves(
    desk: Desk, status: Status, kind: MessageKind, second: Reply
) -> None:
    claim = await desk.put(status)

    assert await desk.send(claim.saga_id, kind, "one") is Reply.ACCEPTED
    assert await desk.send(claim.saga_id, kind, "two") is second


async def test_a_message_to_an_instance_that_is_being_worked_on_leaves_its_owner(
    desk: Desk,
) -> None:
    claim = await desk.put(Status.RUNNING, keep=True)

    assert await desk.send(claim.saga_id, MessageKind.SIGNAL) is Reply.ACCEPTED

    assert (await desk.row(claim.saga_id)).owner == desk.owner
    [owned] = await desk.store.queue.owned(desk.owner)
    assert owned.inbox_seq == 1


async def test_messages_that_a_stuck_instance_gathered_are_there_when_it_is_repaired(
    desk: Desk,
) -> None:
    saga_id = (await desk.put(Status.STUCK)).saga_id
    for n in range(3):
        await desk.send(saga_id, MessageKind.SIGNAL, f"k{n}")
    await desk.send(saga_id, MessageKind.RESUME, "mend")

    claim = await desk.is_claimed(saga_id)

    assert claim is not None
    assert claim.inbox_seq == 4
    assert await desk.stored(saga_id) == ["signal", "signal", "signal", "resume"]


async def test_signals_that_nobody_has_read_are_refused_above_the_limit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "INBOX_LIMIT", 3)
    claim = await desk.put(Status.RUNNING, keep=True)
    for n in range(3):
        assert await desk.send(claim.saga_id, MessageKind.SIGNAL, f"k{n}") is Reply.ACCEPTED

    assert await desk.send(claim.saga_id, MessageKind.SIGNAL, "k3") is Reply.FULL
    assert await desk.send(claim.saga_id, MessageKind.SIGNAL, "k2") is Reply.DUPLICATE
    assert len(await desk.stored(claim.saga_id)) == 3

    read = desk.given.append(desk.owner, claim, head=1, inbox_seen=2)
    assert await desk.store.events.append([read])
    assert await desk.send(claim.saga_id, MessageKind.SIGNAL, "k3") is Reply.ACCEPTED
    assert await desk.send(claim.saga_id, MessageKind.SIGNAL, "k4") is Reply.ACCEPTED
    assert await desk.send(claim.saga_id, MessageKind.SIGNAL, "k5") is Reply.FULL


async def test_an_inbox_full_of_signals_still_takes_what_people_do_about_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "INBOX_LIMIT", 1)
    live, stuck = (await desk.put(Status.WAITING)), (await desk.put(Status.STUCK))
    for claim in (live, stuck):
        await desk.send(claim.saga_id, MessageKind.SIGNAL)
        assert await desk.send(claim.saga_id, MessageKind.SIGNAL, "more") is Reply.FULL

    assert await desk.send(live.saga_id, MessageKind.CANCEL, "c") is Reply.ACCEPTED
    assert await desk.send(live.saga_id, MessageKind.CHILD, "d") is Reply.ACCEPTED
    assert await desk.send(stuck.saga_id, MessageKind.RETRY, "r") is Reply.ACCEPTED

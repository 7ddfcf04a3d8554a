"""The participants of the ready sagas: they refuse, they apply once, they undo once, and they add up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from orchestrator import Permanent
from sagas.participants import refusals
from sagas.participants.effects import effect
from sagas.participants.install import install
from sagas.participants.lender import pay_out
from sagas.participants.refusals import AlreadyUndone, KeyReused, Refused
from sagas.participants.seed import seed
from sagas.resources import open_pool, resources
from tests.sagas.town import CATALOGUE, Town

Do = Callable[[Town, str], Awaitable[str]]
Undo = Callable[[Town, str], Awaitable[None]]


@dataclass(frozen=True)
class Pair:
    """A call that succeeds in our town, its undo, and the same call with another argument."""

    do: Do
    undo: Undo
    other: Do
    before: Do | None = None


async def a_user(town: Town, key: str) -> str:
    return await town.users.create("eve@example.org", "Eve", key=f"{key}/before")


async def a_reservation(town: Town, key: str) -> str:
    return await town.bank.reserve("t1", "ann", 700, key=f"{key}/before")


async def a_debit(town: Town, key: str) -> str:
    await a_reservation(town, f"{key}/r")
    return await town.bank.debit("t1", "ann", 700, key=f"{key}/before")


async def a_credit(town: Town, key: str) -> str:
    await a_debit(town, f"{key}/d")
    return await town.bank.credit("t1", "tim", 700, key=f"{key}/before")


async def a_score(town: Town, key: str, applicant: str = "ann") -> str:
    return str(await town.credit.enquire("l1", applicant, key=key))


PAIRS = {
    "hold": Pair(
        lambda t, k: t.stock.hold("o1", "lamp", 4, key=k),
        lambda t, k: t.stock.release(k),
        lambda t, k: t.stock.hold("o1", "lamp", 5, key=k),
    ),
    "payment": Pair(
        lambda t, k: t.bank.charge("o1", "ann", 900, key=k),
        lambda t, k: t.bank.refund(k),
        lambda t, k: t.bank.charge("o1", "tim", 900, key=k),
    ),
    "parcel": Pair(
        lambda t, k: t.parcels.book("o1", "Mill Lane 1, Ghent", "BE", key=k),
        lambda t, k: t.parcels.cancel(k),
        lambda t, k: t.parcels.book("o2", "Mill Lane 1, Ghent", "BE", key=k),
    ),
    "receipt": Pair(
        lambda t, k: t.receipts.write("o1", "ann", 900, "payment-1", "parcel-1", key=k),
        lambda t, k: t.receipts.withdraw(k),
        lambda t, k: t.receipts.write("o1", "ann", 901, "payment-1", "parcel-1", key=k),
    ),
    "reserve": Pair(
        lambda t, k: t.bank.reserve("t1", "ann", 700, key=k),
        lambda t, k: t.bank.release(k),
        lambda t, k: t.bank.reserve("t1", "ann", 701, key=k),
    ),
    "debit": Pair(
        lambda t, k: t.bank.debit("t1", "ann", 700, key=k),
        lambda t, k: t.bank.release(k),
        lambda t, k: t.bank.credit("t1", "ann", 700, key=k),
        before=a_reservation,
    ),
    "credit": Pair(
        lambda t, k: t.bank.credit("t1", "tim", 700, key=k),
        lambda t, k: t.bank.release(k),
        lambda t, k: t.bank.credit("t2", "tim", 700, key=k),
        before=a_debit,
    ),
    "confirm": Pair(
        lambda t, k: t.bank.confirm("t1", "tim", 700, key=k),
        lambda t, k: t.bank.release(k),
        lambda t, k: t.bank.confirm("t1", "ann", 700, key=k),
        before=a_credit,
    ),
    "user": Pair(
        lambda t, k: t.users.create("Bob@example.org", "Bob", key=k),
        lambda t, k: t.users.delete(k),
        lambda t, k: t.users.create("bob@example.org", "Bob", key=k),
    ),
    "activation": Pair(
        lambda t, k: t.users.activate("user-1", key=k),
        lambda t, k: t.users.deactivate(k),
        lambda t, k: t.users.activate("user-2", key=k),
        before=a_user,
    ),
    "mail": Pair(
        lambda t, k: t.mail.send("ann@example.org", "Welcome", "Dear Ann", key=k),
        lambda t, k: t.mail.mark_failed(k),
        lambda t, k: t.mail.send("ann@example.org", "Welcome", "Dear Tim", key=k),
    ),
    "booking": Pair(
        lambda t, k: t.travel.book("t1", "car-porto", "ann", 900, key=k),
        lambda t, k: t.travel.cancel(k),
        lambda t, k: t.travel.book("t1", "car-porto", "tim", 900, key=k),
    ),
    "registration": Pair(
        lambda t, k: t.travel.register("t1", "ann", "passport", key=k),
        lambda t, k: t.travel.strike(k),
        lambda t, k: t.travel.register("t1", "ann", "licence", key=k),
    ),
    "enquiry": Pair(
        a_score,
        lambda t, k: t.credit.withdraw(k),
        lambda t, k: a_score(t, k, "tim"),
    ),
    "reservation": Pair(
        lambda t, k: t.lender.reserve("l1", "retail", 700, key=k),
        lambda t, k: t.lender.release(k),
        lambda t, k: t.lender.reserve("l1", "retail", 701, key=k),
    ),
    "note": Pair(
        lambda t, k: t.desk.write_note("ann", "milk", key=k),
        lambda t, k: t.desk.tear_up(k),
        lambda t, k: t.desk.write_note("ann", "bread", key=k),
    ),
    "reminder": Pair(
        lambda t, k: t.desk.remind("ann", "09:30", "milk", key=k),
        lambda t, k: t.desk.forget(k),
        lambda t, k: t.desk.remind("ann", "09:31", "milk", key=k),
    ),
}
RECEIPT_ALONE = {
    PAIRS["receipt"].do: ("the receipt of order o1 says 900 cents, its payment does not stand",)
}
pairs = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())

SUMS = """
SELECT (SELECT array_agg(on_hand ORDER BY article) FROM participants.stock_article),
    (SELECT array_agg((cents, reserved, pending) ORDER BY account) FROM participants.bank_account),
    (SELECT sum(cents) FROM participants.bank_till),
    (SELECT array_agg(places ORDER BY offer) FROM participants.travel_offer),
    (SELECT sum(cents) FROM participants.lender_fund),
    (SELECT array_agg(active ORDER BY number) FROM participants.users_user WHERE state = 'live')
"""


async def prepared(town: Town, pair: Pair) -> object:
    """What all sums are before the call."""
    if pair.before is not None:
        await pair.before(town, "k")
    return await town.pool.fetchrow(SUMS)


@pairs
async def test_the_same_key_applies_once_and_answers_the_same(town: Town, pair: Pair) -> None:
    await prepared(town, pair)
    answer = await pair.do(town, "k")
    after = await town.pool.fetchrow(SUMS)
    assert [await pair.do(town, "k") for _ in range(3)] == [answer] * 3
    assert await town.pool.fetchrow(SUMS) == after
    found = await town.effect("k")
    assert (found.state, found.calls, found.undos) == ("live", 4, 0)


@pairs
async def test_twins_that_arrive_together_apply_once(town: Town, pair: Pair) -> None:
    await prepared(town, pair)
    answers = await asyncio.gather(*(pair.do(town, "k") for _ in range(20)))
    assert len(set(answers)) == 1
    assert (await town.effect("k")).calls == 20
    assert (await town.books()).problems == RECEIPT_ALONE.get(pair.do, ())


async def test_twins_that_meet_at_another_unique_index_get_their_answer(town: Town) -> None:
    for n in range(150):
        calls = [town.users.create(f"{n}@example.org", "Bob", key=f"k{n}") for _ in range(8)]
        assert len(set(await asyncio.gather(*calls))) == 1


@pairs
async def test_the_same_key_with_other_arguments_is_an_error(town: Town, pair: Pair) -> None:
    await prepared(town, pair)
    await pair.do(town, "k")
    after = await town.pool.fetchrow(SUMS)
    with pytest.raises(KeyReused, match=r"k was used with other arguments: .* was .*, now "):
        await pair.other(town, "k")
    assert await town.pool.fetchrow(SUMS) == after
    assert (await town.effect("k")).state == "live"


@pairs
async def test_an_undo_takes_back_everything_and_only_once(town: Town, pair: Pair) -> None:
    before = await prepared(town, pair)
    await pair.do(town, "k")
    for _ in range(3):
        await pair.undo(town, "k")
        sums = await town.pool.fetchrow(SUMS)
        assert sums == before
    found = await town.effect("k")
    assert (found.state, found.calls, found.undos) == ("undone", 1, 3)
    assert (await town.books()).balanced


@pairs
async def test_a_call_that_comes_after_its_undo_is_refused(town: Town, pair: Pair) -> None:
    before = await prepared(town, pair)
    await pair.undo(town, "k")
    await pair.undo(town, "k")
    with pytest.raises(AlreadyUndone):
        await pair.do(town, "k")
    assert await town.pool.fetchrow(SUMS) == before
    found = await town.effect("k")
    assert (found.state, found.calls, found.undos) == ("barred", 1, 2)


@pairs
async def test_a_call_repeated_after_its_undo_is_refused(town: Town, pair: Pair) -> None:
    before = await prepared(town, pair)
    await pair.do(town, "k")
    await pair.undo(town, "k")
    with pytest.raises(AlreadyUndone):
        await pair.do(town, "k")
    assert await town.pool.fetchrow(SUMS) == before


@pairs
async def test_a_call_and_its_undo_in_a_race_leave_nothing(town: Town, pair: Pair) -> None:
    before = await prepared(town, pair)
    calls = [pair.do(town, "k") if n % 2 else pair.undo(town, "k") for n in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(o) for o in outcomes} <= {str, type(None), AlreadyUndone}
    assert await town.pool.fetchrow(SUMS) == before


REFUSED: dict[str, tuple[type[Refused], Do]] = {
    "more than on hand": (refusals.OutOfStock, lambda t, k: t.stock.hold("o1", "lamp", 11, key=k)),
    "an unknown article": (
        refusals.UnknownArticle,
        lambda t, k: t.stock.hold("o1", "sofa", 1, key=k),
    ),
    "over the limit": (
        refusals.CardLimitExceeded,
        lambda t, k: t.bank.charge("o1", "ann", 50_001, key=k),
    ),
    "over the balance": (
        refusals.InsufficientFunds,
        lambda t, k: t.bank.charge("o1", "tim", 3_001, key=k),
    ),
    "a closed card": (refusals.AccountClosed, lambda t, k: t.bank.charge("o1", "old", 1, key=k)),
    "an unknown card": (
        refusals.UnknownAccount,
        lambda t, k: t.bank.charge("o1", "nobody", 1, key=k),
    ),
    "reserving too much": (
        refusals.InsufficientFunds,
        lambda t, k: t.bank.reserve("t1", "tim", 3_001, key=k),
    ),
    "reserving in a closed account": (
        refusals.AccountClosed,
        lambda t, k: t.bank.reserve("t1", "old", 1, key=k),
    ),
    "reserving in no account": (
        refusals.UnknownAccount,
        lambda t, k: t.bank.reserve("t1", "nobody", 1, key=k),
    ),
    "debit without reserve": (refusals.OutOfTurn, lambda t, k: t.bank.debit("t1", "ann", 1, key=k)),
    "credit without debit": (refusals.OutOfTurn, lambda t, k: t.bank.credit("t1", "tim", 1, key=k)),
    "confirm without credit": (
        refusals.OutOfTurn,
        lambda t, k: t.bank.confirm("t1", "tim", 1, key=k),
    ),
    "a wrong address": (
        refusals.UnknownAddress,
        lambda t, k: t.parcels.book("o1", "Mill Lane 2", "BE", key=k),
    ),
    "a far country": (
        refusals.CountryNotServed,
        lambda t, k: t.parcels.book("o1", "Base 1, McMurdo", "AQ", key=k),
    ),
    "a high total": (
        refusals.ReviewRequired,
        lambda t, k: t.receipts.write("o1", "ann", 500_001, "payment-1", "parcel-1", key=k),
    ),
    "no tax number": (
        refusals.TaxIdMissing,
        lambda t, k: t.receipts.write("o1", "tim", 1, "payment-1", "parcel-1", key=k),
    ),
    "an unknown user": (refusals.UnknownUser, lambda t, k: t.users.activate("user-404", key=k)),
    "a deaf domain": (
        refusals.MailboxRefused,
        lambda t, k: t.mail.send("a@No-Mail.example", "Hi", "!", key=k),
    ),
    "no such offer": (
        refusals.UnknownOffer,
        lambda t, k: t.travel.book("t1", "car-atlantis", "ann", 900, key=k),
    ),
    "another price": (
        refusals.PriceChanged,
        lambda t, k: t.travel.book("t1", "car-porto", "ann", 899, key=k),
    ),
    "no place left": (
        refusals.SoldOut,
        lambda t, k: t.travel.book("t1", "flight-atlantis", "ann", 2_000, key=k),
    ),
    "no licence": (
        refusals.PapersMissing,
        lambda t, k: t.travel.register("t1", "tim", "licence", key=k),
    ),
    "a ticket for nothing": (
        refusals.UnknownBooking,
        lambda t, k: t.travel.issue("t1", "booking-404", key=k),
    ),
    "an unknown applicant": (
        refusals.UnknownApplicant,
        lambda t, k: a_score(t, k, "nobody"),
    ),
    "more than the fund": (
        refusals.FundExhausted,
        lambda t, k: t.lender.reserve("l1", "retail", 5_000_001, key=k),
    ),
    "no such fund": (
        refusals.UnknownFund,
        lambda t, k: t.lender.reserve("l1", "wholesale", 1, key=k),
    ),
}


@pytest.mark.parametrize(("reason", "call"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_refusal_says_why_and_leaves_nothing(
    town: Town, reason: type[Refused], call: Do
) -> None:
    before = await town.pool.fetchrow(SUMS)
    for _ in range(2):
        with pytest.raises(Permanent) as caught:
            await call(town, "k")
        assert type(caught.value) is reason
        assert len(str(caught.value)) > 15
    assert await town.pool.fetchrow(SUMS) == before
    assert await effect(town.pool, "k") is None


async def test_an_undo_after_a_refusal_has_nothing_to_undo(town: Town) -> None:
    with pytest.raises(refusals.OutOfStock, match="11 of article lamp asked for, 10 on hand"):
        await town.stock.hold("o1", "lamp", 11, key="k")
    await town.stock.release("k")
    assert await town.on_hand("lamp") == 10


async def test_one_email_address_is_one_user_until_it_is_deleted(town: Town) -> None:
    await town.users.create("ann@example.org", "Ann", key="a")
    with pytest.raises(refusals.EmailTaken):
        await town.users.create("Ann@Example.org", "Another Ann", key="b")
    await town.users.delete("a")
    await town.users.create("ann@example.org", "Another Ann", key="c")
    assert (await town.books()).live["user"] == {"ann@example.org"}


async def test_a_banned_user_is_not_let_in(town: Town) -> None:
    user = await town.users.create("mallory@example.org", "Mallory", key="u")
    with pytest.raises(refusals.UserBanned):
        await town.users.activate(user, key="a")
    assert await town.value("SELECT active FROM participants.users_user WHERE key = 'u'") is False


async def test_a_deleted_user_cannot_be_let_in(town: Town) -> None:
    user = await town.users.create("ann@example.org", "Ann", key="u")
    await town.users.delete("u")
    with pytest.raises(refusals.UnknownUser):
        await town.users.activate(user, key="a")


async def test_an_order_gets_one_receipt(town: Town) -> None:
    await town.receipts.write("o1", "ann", 900, "payment-1", "parcel-1", key="a")
    with pytest.raises(refusals.ReceiptExists):
        await town.receipts.write("o1", "ann", 900, "payment-1", "parcel-1", key="b")
    await town.receipts.withdraw("a")
    await town.receipts.write("o1", "ann", 900, "payment-1", "parcel-1", key="b")
    assert (await town.books()).receipted == {"o1"}


async def test_a_transfer_moves_money_leg_by_leg(town: Town) -> None:
    seen = []
    for move, account in (
        ("reserve", "ann"),
        ("debit", "ann"),
        ("credit", "tim"),
        ("confirm", "tim"),
    ):
        await getattr(town.bank, move)("t1", account, 700, key=move)
        seen.append((await town.account("ann"), await town.account("tim")))
        assert (await town.books()).balanced
    assert seen == [
        ((100_000, 700, 0), (3_000, 0, 0)),
        ((99_300, 0, 0), (3_000, 0, 0)),
        ((99_300, 0, 0), (3_000, 0, 700)),
        ((99_300, 0, 0), (3_700, 0, 0)),
    ]


async def test_reserved_and_pending_money_cannot_be_spent(town: Town) -> None:
    await town.bank.reserve("t1", "tim", 2_000, key="r")
    with pytest.raises(refusals.InsufficientFunds):
        await town.bank.charge("o1", "tim", 1_001, key="c")
    await a_debit(town, "d")
    await town.bank.credit("t1", "tim", 700, key="in")
    with pytest.raises(refusals.InsufficientFunds):
        await town.bank.charge("o1", "tim", 1_001, key="c")


async def test_a_confirmed_credit_can_be_taken_back_after_it_was_spent(town: Town) -> None:
    await a_credit(town, "k")
    await town.bank.confirm("t1", "tim", 700, key="confirm")
    await town.bank.charge("o1", "tim", 3_700, key="spent")
    await town.bank.release("confirm")
    assert await town.account("tim") == (-700, 0, 700)
    assert (await town.books()).balanced


async def test_a_card_limit_that_changes_later_does_not_change_an_answer(town: Town) -> None:
    answer = await town.bank.charge("o1", "ann", 40_000, key="k")
    await town.pool.execute("UPDATE participants.bank_account SET card_limit = 1, closed = true")
    assert await town.bank.charge("o1", "ann", 40_000, key="k") == answer
    await town.bank.refund("k")
    assert await town.account("ann") == (100_000, 0, 0)


async def test_two_reminders_at_one_time_are_one_too_many(town: Town) -> None:
    await town.desk.remind("ann", "09:30", "milk", key="a")
    with pytest.raises(refusals.SlotTaken, match="ann has a reminder at 09:30 already"):
        await town.desk.remind("ann", "09:30", "bread", key="b")
    await town.desk.forget("a")
    assert await town.desk.remind("ann", "09:30", "bread", key="b")


async def test_a_ticket_is_issued_once(town: Town) -> None:
    booking = await town.travel.book("t1", "car-porto", "ann", 900, key="b")
    tickets = {await town.travel.issue("t1", booking, key="t") for _ in range(3)}
    assert len(tickets) == 1
    await town.bank.charge("t1", "ann", 900, key="p")
    assert (await town.books()).travelling == {"t1"}


SETTLED: dict[str, tuple[Do, Callable[[Town, str], Awaitable[object]]]] = {
    "payment": (PAIRS["payment"].do, lambda t, k: t.bank.charged(k)),
    "enquiry": (PAIRS["enquiry"].do, lambda t, k: t.credit.enquired(k)),
}
settled = pytest.mark.parametrize(("do", "ask"), SETTLED.values(), ids=SETTLED.keys())


@settled
async def test_who_asks_whether_it_happened_is_told_what_stands(
    town: Town, do: Do, ask: Callable[[Town, str], Awaitable[object]]
) -> None:
    answer = await do(town, "k")
    assert [str(await ask(town, "k")) for _ in range(2)] == [answer, answer]
    assert (await town.effect("k")).calls == 1


@settled
async def test_what_did_not_happen_will_not_happen_any_more(
    town: Town, do: Do, ask: Callable[[Town, str], Awaitable[object]]
) -> None:
    before = await town.pool.fetchrow(SUMS)
    assert [await ask(town, "k") for _ in range(2)] == [None, None]
    with pytest.raises(AlreadyUndone):
        await do(town, "k")
    assert await town.pool.fetchrow(SUMS) == before


async def test_a_payout_is_part_of_the_callers_transaction(town: Town) -> None:
    async with town.pool.acquire() as db:
        with pytest.raises(refusals.AccountClosed):
            async with db.transaction():
                await pay_out(db, "l1", "old", 700)
        with pytest.raises(refusals.UnknownAccount):
            async with db.transaction():
                await pay_out(db, "l1", "nobody", 700)
        assert (await town.books()).live["loan"] == frozenset()
        await town.lender.reserve("l1", "retail", 700, key="r")
        await pay_out(db, "l1", "ann", 700)
    assert await town.account("ann") == (100_700, 0, 0)
    assert (await town.books()).problems == ()


async def test_the_schema_may_be_installed_by_many_at_once_and_again(dsn: str) -> None:
    async with open_pool(dsn) as pool:
        await asyncio.gather(*(install(pool) for _ in range(8)))
        await asyncio.gather(*(seed(pool, CATALOGUE) for _ in range(8)))
        assert await pool.fetchval("SELECT count(*) FROM participants.bank_till") == 16
        assert await pool.fetchval("SELECT sum(on_hand) FROM participants.stock_article") == 1_010


async def test_a_worker_gets_every_participant_that_the_sagas_use(dsn: str) -> None:
    async with resources(dsn) as found:
        assert {kind.__name__ for kind in found} == {
            "Stock",
            "Bank",
            "Parcels",
            "Receipts",
            "Users",
            "Mail",
            "Travel",
            "CreditBureau",
            "Lender",
            "Desk",
            "ModelClient",
        }
        assert all(isinstance(participant, kind) for kind, participant in found.items())


async def test_seeding_again_keeps_what_happened_unless_told_to_reset(town: Town) -> None:
    await town.stock.hold("o1", "lamp", 4, key="k")
    await town.bank.charge("o1", "ann", 4_000, key="p")
    await seed(town.pool, CATALOGUE)
    assert (await town.on_hand("lamp"), await town.takings()) == (6, 4_000)
    await seed(town.pool, CATALOGUE, reset=True)
    assert (await town.on_hand("lamp"), await town.takings()) == (10, 0)
    assert await effect(town.pool, "k") is None

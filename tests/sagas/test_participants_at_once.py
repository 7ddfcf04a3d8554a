"""Fifty callers at once: nothing is sold twice, nobody overdraws, and no money is made or lost."""

from __future__ import annotations

import asyncio

from sagas.participants import refusals
from tests.sagas.town import Town

SUMS = """
SELECT (SELECT array_agg(on_hand ORDER BY article) FROM participants.stock_article),
    (SELECT array_agg((cents, reserved, pending) ORDER BY account) FROM participants.bank_account),
    (SELECT sum(cents) FROM participants.bank_till)
"""


async def test_fifty_sign_ups_with_one_address_make_one_user(town: Town) -> None:
    calls = [town.users.create("ann@example.org", "Ann", key=f"k{n}") for n in range(50)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(o).__name__ for o in outcomes) == ["EmailTaken"] * 49 + ["str"]


async def test_fifty_orders_at_once_for_one_article_never_oversell(town: Town) -> None:
    calls = [town.stock.hold(f"o{n}", "lamp", 1, key=f"k{n}") for n in range(50)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(o, str) for o in outcomes) == 10
    assert sum(isinstance(o, refusals.OutOfStock) for o in outcomes) == 40
    assert await town.on_hand("lamp") == 0
    assert (await town.books()).balanced


async def test_fifty_payments_at_once_from_one_account_never_overdraw(town: Town) -> None:
    calls = [town.bank.charge(f"o{n}", "tim", 100, key=f"k{n}") for n in range(50)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(o, refusals.InsufficientFunds) for o in outcomes) == 20
    assert (await town.account("tim"), await town.takings()) == ((0, 0, 0), 3_000)
    assert (await town.books()).balanced


async def test_fifty_orders_done_and_undone_at_once_leave_no_trace(town: Town) -> None:
    async def order(n: int) -> None:
        await town.stock.hold(f"o{n}", "chair", 2, key=f"{n}/hold")
        await asyncio.gather(
            town.bank.charge(f"o{n}", "ann", 10, key=f"{n}/pay"),
            town.parcels.book(f"o{n}", "Mill Lane 1, Ghent", "BE", key=f"{n}/ship"),
        )
        await asyncio.gather(town.bank.refund(f"{n}/pay"), town.parcels.cancel(f"{n}/ship"))
        await town.stock.release(f"{n}/hold")

    before = await town.pool.fetchrow(SUMS)
    await asyncio.gather(*(order(n) for n in range(50)))
    assert await town.pool.fetchrow(SUMS) == before
    books = await town.books()
    assert books.balanced
    assert not books.half_done
    assert len(books.undone["payment"]) == 50


async def test_transfers_there_and_back_at_once_conserve_all_money(town: Town) -> None:
    async def transfer(n: int) -> None:
        source, target = ("ann", "tim") if n % 2 else ("tim", "ann")
        await town.bank.reserve(f"t{n}", source, 20, key=f"{n}/r")
        await town.bank.debit(f"t{n}", source, 20, key=f"{n}/d")
        await town.bank.credit(f"t{n}", target, 20, key=f"{n}/c")
        if n % 5:
            await town.bank.confirm(f"t{n}", target, 20, key=f"{n}/ok")
        else:
            for leg in ("c", "d", "r"):
                await town.bank.release(f"{n}/{leg}")

    await asyncio.gather(*(transfer(n) for n in range(50)))
    assert await town.account("ann") == (100_000, 0, 0)
    assert await town.account("tim") == (3_000, 0, 0)
    assert (await town.books()).balanced

"""The five hundred orders: made by the seed, and each meets the fate that was meant for it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from importlib.resources import files
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator import Status
from sagas import assistant, trip_booking
from sagas.assistant import Ask
from sagas.data.generate import make
from sagas.loan_approval import Application, Verdict, verdict
from sagas.order_fulfilment import PlaceOrder
from sagas.participants.refusals import BY_NAME, Refused
from sagas.participants.seed import seed
from sagas.trip_booking import BookTrip
from tests.sagas.hasty_loans import SAGAS as HASTY
from tests.sagas.office import ended, office, seen
from tests.sagas.town import Town

Orders = list[PlaceOrder]


def read(name: str) -> str:
    return files("sagas.data").joinpath(name).read_text("utf-8")


@pytest.fixture(scope="module")
def orders() -> Orders:
    return [PlaceOrder.model_validate_json(line) for line in read("orders.jsonl").splitlines()]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read("expected.json"))
    return found


@pytest.fixture
async def market(town: Town) -> Town:
    await seed(town.pool, reset=True)
    return town


def test_the_files_are_what_the_generator_makes() -> None:
    assert {name: read(name) for name in make()} == make()


def test_another_seed_makes_other_orders() -> None:
    assert make(seed=1)["orders.jsonl"] != make(seed=2)["orders.jsonl"]


def test_there_are_five_hundred_varied_orders(orders: Orders) -> None:
    assert len({order.order_id for order in orders}) == 500
    assert len({order.customer for order in orders}) == 60
    assert len({order.article for order in orders}) >= 38
    assert len({order.cents for order in orders}) > 100


def test_most_orders_succeed_and_every_reason_occurs(expected: dict[str, Any]) -> None:
    counts = expected["counts"]
    assert sum(counts.values()) == 500
    assert 0.80 <= counts.pop("completed") / 500 <= 0.85
    assert set(counts) <= set(BY_NAME)
    assert counts == Counter(expected["refused"].values())
    assert min(counts.values()) >= 5


async def process(town: Town, order: PlaceOrder) -> str:
    """The saga by hand: what each participant says, and everything undone after a refusal."""
    key = order.order_id
    try:
        await town.stock.hold(key, order.article, order.quantity, key=f"{key}/hold")
        payment, parcel = await asyncio.gather(
            town.bank.charge(key, order.customer, order.cents, key=f"{key}/pay"),
            town.parcels.book(key, order.address, order.country, key=f"{key}/ship"),
            return_exceptions=True,
        )
        for outcome in (payment, parcel):
            if isinstance(outcome, BaseException):
                raise outcome
        await town.receipts.write(
            key, order.customer, order.cents, str(payment), str(parcel), key=f"{key}/receipt"
        )
    except Refused as refused:
        await asyncio.gather(
            town.receipts.withdraw(f"{key}/receipt"),
            town.parcels.cancel(f"{key}/ship"),
            town.bank.refund(f"{key}/pay"),
            town.stock.release(f"{key}/hold"),
        )
        return type(refused).__name__
    return "completed"


@pytest.mark.parametrize("shuffle", [1, 2])
async def test_each_order_meets_its_fate_in_any_order_of_processing(
    market: Town, orders: Orders, expected: dict[str, Any], shuffle: int
) -> None:
    queue = sorted(orders, key=lambda order: Random(f"{shuffle} {order.order_id}").random())
    limit = asyncio.Semaphore(60)

    async def one(order: PlaceOrder) -> tuple[str, str]:
        async with limit:
            return order.order_id, await process(market, order)

    fates = dict(await asyncio.gather(*map(one, queue)))
    assert {key: fate for key, fate in fates.items() if fate != "completed"} == expected["refused"]
    books = await market.books()
    assert books.problems == ()
    assert books.half_done == frozenset()
    assert books.fulfilled == {key for key, fate in fates.items() if fate == "completed"}


async def test_the_first_refusal_is_the_one_meant_and_branches_never_both_refuse(
    market: Town, orders: Orders, expected: dict[str, Any]
) -> None:
    for order in orders:
        key = order.order_id
        reasons: list[str | None] = []
        for call in (
            market.stock.hold(key, order.article, order.quantity, key=f"{key}/hold"),
            market.bank.charge(key, order.customer, order.cents, key=f"{key}/pay"),
            market.parcels.book(key, order.address, order.country, key=f"{key}/ship"),
            market.receipts.write(key, order.customer, order.cents, "payment", "parcel", key=key),
        ):
            try:
                await call
                reasons.append(None)
            except Refused as refused:
                reasons.append(type(refused).__name__)
        hold, pay, ship, receipt = reasons
        assert (hold or pay or ship or receipt) == expected["refused"].get(key)
        assert hold or not (pay and ship)


SAMPLES: dict[str, tuple[str, type[BaseModel], str]] = {
    "trips": ("trips.jsonl", BookTrip, "trip_id"),
    "loans": ("loans.jsonl", Application, "loan_id"),
    "wishes": ("wishes.jsonl", Ask, "user"),
}
READY = {"trips": trip_booking.saga, "loans": HASTY[0], "wishes": assistant.saga}


def sample(kind: str) -> dict[str, Any]:
    """The rows of a file by their ids."""
    name, model, id_ = SAMPLES[kind]
    rows = [model.model_validate_json(line) for line in read(name).splitlines()]
    return {getattr(row, id_): row for row in rows}


@pytest.mark.parametrize("kind", SAMPLES)
async def test_each_sample_meets_its_fate(market: Town, dsn: str, kind: str) -> None:
    fates, rows, saga = json.loads(read("fates.json"))[kind], sample(kind), READY[kind]
    assert set(rows) == set(fates)
    async with office(dsn, saga) as orchestrator:
        handles = {id_: await orchestrator.start(saga, row) for id_, row in rows.items()}
        for id_ in [id_ for id_, fate in fates.items() if fate == "waits"]:
            await seen(handles[id_], "WaitStarted")
            await handles[id_].signal(verdict, Verdict(approved=True, by="eve"))
        ends = {id_: await ended(handle, within=60) for id_, handle in handles.items()}
    good = {id_ for id_, fate in fates.items() if fate in ("completed", "waits")}
    assert {id_ for id_, (status, _) in ends.items() if status is Status.COMPLETED} == good
    for id_ in fates.keys() - good:
        status, why = ends[id_]
        assert (status, fates[id_] in why) == (Status.COMPENSATED, True), (id_, why)
    books = await market.books()
    assert books.problems == ()
    assert books.half_booked == books.half_lent == frozenset()
    if kind == "trips":
        assert books.travelling == good
    if kind == "loans":
        assert books.live["loan"] == good
    if kind == "wishes":
        assert books.live["note"] | books.live["reminder"] <= good

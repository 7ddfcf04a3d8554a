"""Holds the participants' books against the event log: does what was done agree with it?"""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.bootstrap import App
from orchestrator.domain.events import Failure, Status
from orchestrator.domain.state import SagaState
from orchestrator.errors import TamperedHistoryError
from orchestrator.faces.demo.shop import Shop

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """What the audit saw. `example` is a compensated saga, the one with most to undo."""

    reasons: Mapping[str, int]
    events: int
    example: str | None
    problems: tuple[str, ...]


async def audit(app: App, shop: Shop, pool: Any, expected: Mapping[str, str] | None) -> Findings:
    """Fold and verify every order of the run, add the books up, and compare all of it."""
    books = await importlib.import_module("sagas.participants.books").balance_books(pool)
    events, broken = await _verify(app, shop.statuses)
    states = {
        saga_id: await app.orchestrator.state(saga_id)
        for saga_id, status in shop.statuses.items()
        if status is Status.COMPENSATED
    }
    reasons = {shop.order_of[saga_id].order_id: _reason(state) for saga_id, state in states.items()}
    longest = max(states, key=lambda saga_id: len(states[saga_id].undone), default=None)
    problems = (
        *broken,
        *books.problems,
        *_compare(shop, books),
        *_not_settled(shop),
        *_surprises(shop, reasons, expected),
    )
    return Findings(dict(Counter(reasons.values()).most_common()), events, longest, problems)


def _compare(shop: Shop, books: Any) -> list[str]:
    """Completed orders have each effect once, the others none, by the participants' own tables."""
    completed = {
        shop.order_of[saga_id].order_id
        for saga_id, status in shop.statuses.items()
        if status is Status.COMPLETED
    }
    standing = {
        "hold": books.holding,
        "payment": books.paid,
        "parcel": books.shipped,
        "receipt": books.receipted,
    }
    known = {order.order_id for order in shop.order_of.values()}
    problems: list[str] = []
    for thing, owners in standing.items():
        orders = owners & known
        problems += [f"{o} completed, but has no {thing}" for o in sorted(completed - orders)]
        problems += [f"{o} did not complete, but has a {thing}" for o in sorted(orders - completed)]
    return problems


def _not_settled(shop: Shop) -> list[str]:
    return [
        f"{shop.order_of[saga_id].order_id} is {status}: saga {saga_id}"
        for saga_id, status in shop.statuses.items()
        if status not in (Status.COMPLETED, Status.COMPENSATED)
    ]


def _surprises(
    shop: Shop, reasons: Mapping[str, str], expected: Mapping[str, str] | None
) -> list[str]:
    """Orders that ended otherwise than the data was made for, where that is known."""
    if expected is None:
        return []
    ends = {order.order_id: reasons.get(order.order_id) for order in shop.order_of.values()}
    return [
        f"{order_id} was made for {expected.get(order_id) or 'success'}, not for {end or 'success'}"
        for order_id, end in ends.items()
        if end != expected.get(order_id)
    ]


def _reason(state: SagaState) -> str:
    return " + ".join(sorted(set(_roots(state.failure)))) or state.reason


def _roots(failure: Failure | None) -> Iterable[str]:
    """The failures at the bottom: a group of branches has one for each that failed."""
    if failure is None:
        return
    if not failure.causes:
        yield failure.type
    for cause in failure.causes:
        yield from _roots(cause)


async def _verify(app: App, saga_ids: Iterable[str]) -> tuple[int, list[str]]:
    """The number of events whose hash chains verify, and what does not."""
    permits = asyncio.Semaphore(_AT_ONCE)

    async def verify(saga_id: str) -> int | str:
        async with permits:
            try:
                return await app.orchestrator.verify(saga_id)
            except TamperedHistoryError as error:
                return str(error)

    answers = await asyncio.gather(*map(verify, saga_ids))
    events = sum(answer for answer in answers if isinstance(answer, int))
    return events, [answer for answer in answers if isinstance(answer, str)]

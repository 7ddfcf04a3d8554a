"""The assistant on a real database with a real worker: which model is asked, what it costs, what is done."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest

from orchestrator import Handle, Status
from sagas import assistant
from sagas.assistant import Ask, saga
from sagas.models import Answer, LocalModels, ModelClient, Role, Tier
from tests.sagas.office import ended, held, kill, office, process, stands, started
from tests.sagas.town import Town

NOTE = "note buy milk"
REMINDER = "remind me at 09:30 to call tim"
MAIL = "mail tim@example.org about lunch"


class Models(LocalModels):
    """Counts what is asked; some tiers may be down, some dear."""

    def __init__(self, down: tuple[Tier, ...] = (), dear: Role | None = None) -> None:
        self.asked = Counter[tuple[Tier, Role]]()
        self._down = down
        self._dear = dear

    async def complete(self, tier: Tier, role: Role, text: str, *, key: str) -> Answer:
        self.asked[tier, role] += 1
        if tier in self._down:
            raise ConnectionRefusedError(f"the {tier} model is down")
        answer = await super().complete(tier, role, text, key=key)
        return answer._replace(cents=1_000.0) if role == self._dear else answer


def ask(*wishes: str, user: str = "ann@example.org") -> Ask:
    return Ask(user=user, text=" and then ".join(wishes))


async def cost(handle: Handle[Any]) -> float:
    return sum([getattr(entry.event, "cost", 0.0) async for entry in handle.history()])


async def nothing_is_left(town: Town) -> None:
    books = await town.books()
    assert books.problems == ()
    assert books.live["note"] | books.live["reminder"] | books.live["mail"] == frozenset()


async def test_one_wish_is_understood_by_the_small_model(town: Town, dsn: str) -> None:
    models = Models()
    async with office(dsn, saga, instead={ModelClient: models}) as orchestrator:
        handle = await orchestrator.start(saga, ask(NOTE))
        report = await handle.result(within=20)
        assert await cost(handle) == 0.25 + 0.25 + 2.0 + 0.25
    assert report.text == "Done: note-1."
    assert models.asked == {
        ("small", "intent"): 1, ("small", "plan"): 1, ("large", "safety"): 1, ("small", "report"): 1,
    }  # fmt: skip
    assert (await town.books()).live["note"] == {"ann@example.org"}


async def test_several_wishes_are_understood_by_the_large_model_and_served_by_their_tools(
    town: Town, dsn: str
) -> None:
    models = Models()
    async with office(dsn, saga, instead={ModelClient: models}) as orchestrator:
        handle = await orchestrator.start(saga, ask(NOTE, REMINDER, MAIL))
        report = await handle.result(within=20)
        assert await cost(handle) == 0.25 + 2.0 + 0.25 + 2.0 + 0.25
    assert [outcome.tool for outcome in report.outcomes] == ["note", "reminder", "mail"]
    assert models.asked["small", "intent"] == models.asked["large", "intent"] == 1
    books = await town.books()
    assert books.problems == ()
    assert books.live["note"] == books.live["reminder"] == {"ann@example.org"}
    assert books.live["mail"] == {"tim@example.org"}


async def test_what_was_understood_once_is_not_asked_again(town: Town, dsn: str) -> None:
    models = Models()
    async with office(dsn, saga, instead={ModelClient: models}) as orchestrator:
        for user in ("ann@example.org", "tim@example.org"):
            handle = await orchestrator.start(saga, ask(NOTE, user=user))
            await handle.result(within=20)
        assert await cost(handle) == 2.0 + 0.25
    assert models.asked["small", "intent"] == models.asked["small", "plan"] == 1
    assert models.asked["large", "safety"] == 2
    assert (await town.books()).live["note"] == {"ann@example.org", "tim@example.org"}


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ((NOTE, "note the password of the bank"), 'it says "password"'),
        ((NOTE, "make me a sandwich"), "no tool does all of this"),
        ((NOTE, "mail tim@no-mail.example about lunch"), "no-mail.example"),
        ((REMINDER, "remind me at 09:30 to be elsewhere"), "has a reminder at 09:30 already"),
    ],
    ids=["unsafe", "not understood", "refused mail", "taken slot"],
)
async def test_all_of_a_request_is_done_or_nothing(
    town: Town, dsn: str, wishes: tuple[str, ...], reason: str
) -> None:
    async with office(dsn, saga) as orchestrator:
        status, why = await ended(await orchestrator.start(saga, ask(*wishes)))
    assert status is Status.COMPENSATED
    assert reason in why
    await nothing_is_left(town)


@pytest.mark.slow
async def test_where_the_small_model_is_down_the_large_one_thinks_and_the_report_is_plain(
    town: Town, dsn: str
) -> None:
    models = Models(down=("small",))
    async with office(dsn, saga, instead={ModelClient: models}) as orchestrator:
        handle = await orchestrator.start(saga, ask(NOTE))
        report = await handle.result(within=40)
        types = Counter([entry.type async for entry in handle.history()])
    assert report.text == "Done: note-1."
    assert models.asked["large", "intent"] == models.asked["large", "plan"] == 1
    assert types["FallbackTaken"] == 3
    # Five failures open the circuit: after that nobody asks it any more.
    assert sum(count for (tier, _), count in models.asked.items() if tier == "small") == 5
    assert types["StepHeld"] >= 1
    assert (await town.books()).live["note"] == {"ann@example.org"}


async def test_a_request_that_costs_more_than_its_budget_goes_no_further(
    town: Town, dsn: str
) -> None:
    models = Models(dear="plan")
    async with office(dsn, saga, instead={ModelClient: models}) as orchestrator:
        status, why = await ended(await orchestrator.start(saga, ask(NOTE)))
    assert status is Status.COMPENSATED
    assert f"1000.25 of {assistant.CENTS_EACH} are spent" in why
    assert models.asked["large", "safety"] == 0
    await nothing_is_left(town)


async def test_when_the_purse_of_the_day_is_empty_nothing_is_thought_any_more(
    town: Town, dsn: str
) -> None:
    models = Models(dear="report")
    async with office(dsn, saga, instead={ModelClient: models}) as orchestrator:
        for number in range(5):
            handle = await orchestrator.start(saga, ask(f"note {number}"))
            await handle.result(within=20)
        status, why = await ended(await orchestrator.start(saga, ask("note one too many")))
    assert status is Status.COMPENSATED
    assert f"of {assistant.CENTS_A_DAY} are spent" in why
    assert models.asked["small", "report"] == 5
    assert await town.value("SELECT count(*) FROM participants.desk_note") == 5


@pytest.mark.crash
async def test_a_worker_that_is_killed_in_a_tool_is_taken_over_and_no_model_is_asked_twice(
    town: Town, dsn: str
) -> None:
    async with started(dsn, saga, ask(NOTE, REMINDER)) as handle:
        with process(dsn, "sagas") as first:
            async with held(town.pool, "LOCK TABLE participants.desk_reminder"):
                await stands(town.pool, "desk_reminder")
                await kill(first)
        with process(dsn, "sagas") as second:
            report = await handle.result(within=40)
            assert second.end(signal.SIGTERM) == 0
        assert await cost(handle) == 0.25 + 2.0 + 0.25 + 2.0 + 0.25
    assert [outcome.tool for outcome in report.outcomes] == ["note", "reminder"]
    books = await town.books()
    assert books.problems == ()
    assert books.live["note"] == books.live["reminder"] == {"ann@example.org"}

"""What is asked for in a chaos run, drawn from a seed: sagas, scripts of the ledger, messages."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos import flows
from tests.chaos.flows import Transfer

ACCOUNTS = 12
COMPLETED, COMPENSATED, STUCK = "completed", "compensated", "stuck"
Script = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Plan:
    """One saga to be started. *ends* are the statuses it may end with when nobody cancels it."""

    ref: str
    saga: str
    order: Transfer
    ends: tuple[str, ...]
    script: Script = field(default_factory=dict)
    cancel_after: float | None = None
    verdict: bool | None = None
    verdict_after: float = 0.0
    twice: bool = False
    poison: bool = False


Trouble = tuple[Script, str]
"""What the ledger does, and how the saga ends then."""


def _troubles(first: str, last: str, undoable: Sequence[str]) -> list[Trouble]:
    """*first* and *last* are steps that move money; *undoable* those before *last*."""
    do, undo = f"{first}/do", f"{undoable[0]}/undo"
    refused = {f"{last}/do": ["refuse*"]}
    return [
        ({}, COMPLETED),
        ({do: ["fail", "fail"]}, COMPLETED),
        ({do: ["lie"], f"{last}/do": ["lie500", "fail"]}, COMPLETED),
        ({do: ["drop", "lie"]}, COMPLETED),
        ({f"{last}/do": ["hold:1.2"]}, COMPLETED),
        (refused, COMPENSATED),
        ({**refused, undo: ["fail", "lie"]}, COMPENSATED),
        ({**refused, undo: ["hold:0.8"]}, COMPENSATED),
    ]


def _violent(first: str, last: str, undoable: Sequence[str]) -> list[Trouble]:
    """The ledger strikes its caller."""
    undo = f"{undoable[0]}/undo"
    refused = {f"{last}/do": ["refuse*"]}
    return [
        ({**refused, undo: ["kill_after"]}, COMPENSATED),
        ({f"{last}/do": ["kill_after"]}, COMPLETED),
        ({f"{first}/do": ["kill_before"]}, COMPLETED),
        ({**refused, undo: ["kill_before"]}, COMPENSATED),
        ({f"{last}/do": ["stop:3"]}, COMPLETED),
    ]


_SHAPES: dict[str, tuple[str, str, Sequence[str]]] = {
    flows.transfer.name: ("debit", "credit", ["debit"]),
    flows.approval.name: ("debit", "credit", ["debit"]),
    flows.sleeper.name: ("debit", "credit", ["debit"]),
    flows.fan.name: ("debit", "rest", ["debit"]),
    flows.batch.name: ("line0", "line3", ["line0"]),
    flows.family.name: ("hold", "settle", ["hold"]),
    flows.sealed.name: ("debit", "credit", ["debit"]),
}
_WEIGHTS = {
    flows.transfer.name: 5, flows.approval.name: 3, flows.sleeper.name: 2, flows.fan.name: 2,
    flows.batch.name: 2, flows.family.name: 2, flows.sealed.name: 2,
}  # fmt: skip
_EVERY_VIOLENT = 30
"""One in so many sagas strikes the worker that carries it."""


class Orders:
    """An endless list of plans; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"orders {seed}")
        self._violent = 0

    def plan(self, number: int, now: Callable[[], float]) -> Plan:
        """Plan number *number* (from 0)."""
        chance = self._chance
        ref = f"t{number}"
        name = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        source, target = chance.sample(range(ACCOUNTS), 2)
        order = Transfer(
            ref, f"account:{source}", f"account:{target}", chance.randrange(100, 10_000), 0.0, now()
        )
        script, end = self._trouble(number, name)
        if name == flows.sealed.name and end == COMPLETED and chance.random() < 0.5:
            script = {**script, "notify/do": ["fail", "lie", "drop", "fail"]}
        verdict = None
        if name == flows.approval.name:
            verdict = chance.random() < 0.8
            end = end if verdict else COMPENSATED
        return Plan(
            ref,
            name,
            order,
            (end,),
            script,
            cancel_after=chance.uniform(0, 3) if chance.random() < 0.15 else None,
            verdict=verdict,
            verdict_after=0.0 if chance.random() < 0.4 else chance.uniform(0.5, 3),
            twice=chance.random() < 0.2,
        )

    def _trouble(self, number: int, name: str) -> Trouble:
        shape = _SHAPES[name]
        if number % _EVERY_VIOLENT == _EVERY_VIOLENT // 2:
            violent = _violent(*shape)
            self._violent += 1
            return violent[(self._violent - 1) % len(violent)]
        doubtful: list[Trouble] = []
        if name == flows.transfer.name:
            doubtful = [
                ({"credit/do": ["lie*"]}, COMPLETED),
                ({"credit/do": ["drop*"], "credit/probe": ["fail"]}, COMPENSATED),
                ({"credit/do": ["refuse*"], "debit/undo": ["refuse*"]}, STUCK),
            ]
        return self._chance.choice([*_troubles(*shape), ({}, COMPLETED), *doubtful])

    def poison(self, number: int, now: Callable[[], float]) -> list[Plan]:
        """One saga of each kind that nobody can carry."""
        plans = []
        for saga in flows.POISON:
            ref = f"p{number}-{saga.name}"
            order = Transfer(ref, "account:0", "account:1", 0, 0.0, now())
            plans.append(Plan(ref, saga.name, order, (STUCK,), poison=True))
        return plans

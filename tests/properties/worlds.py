"""Random worlds: what becomes of every call, by its place and its attempt only.

So a call that is made again under the same key, by whomever, comes to the same.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from orchestrator.domain.branching import Loop, Router
from orchestrator.domain.commands import (
    Answered,
    CacheGuard,
    CancelChild,
    ChildOver,
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    Postponed,
    Remembered,
    RunCompensation,
    RunProbe,
    RunStep,
    StartChild,
    Succeeded,
    UndoChild,
)
from orchestrator.domain.definition import Pure
from orchestrator.domain.events import Failure, Json
from orchestrator.domain.wrappers import Using
from tests.drive import GONE_BACK, NOW, START, UNKNOWN, Answer, Drive, name_of
from tests.properties.trees import Case, names
from tests.spec import BROKEN, DECLINED

FORWARD = ["fails", "is in doubt", "fails", "is in doubt", "is declined"]
BACKWARD = ["fails", "is in doubt", "succeeds", "succeeds", "succeeds", "is declined"]
ANSWERS = ["happened", "not_happened", "unknown", "fails"]
ROUGH = 35
"""Of a hundred calls in foul weather, so many have one of the words above."""

HELD_UNTIL = START + timedelta(seconds=7)
OUTCOMES: dict[str, Outcome] = {
    "fails": Failed(BROKEN),
    "is declined": Failed(DECLINED),
    "is in doubt": InDoubt(UNKNOWN, cost=1),
}


@dataclass(frozen=True)
class World:
    """Scripts by name, each entry for one attempt; what is not scripted is left to the weather.

    In fair weather, which is 0, it succeeds.
    """

    forward: dict[str, list[str]]
    undo: dict[str, list[str]]
    probes: dict[str, list[str]]
    takes: dict[str, int]
    spread: int = 1
    weather: int = 0

    def word(self, name: str, path: str, attempt: int) -> str:
        return self.nth(self.forward, FORWARD, name, path, attempt)

    def nth(
        self, scripts: dict[str, list[str]], words: list[str], name: str, path: str, attempt: int
    ) -> str:
        """What this attempt comes to; "succeeds" when nothing says otherwise."""
        number = attempt + self.shift(path)
        if self.weather and name not in scripts:
            chance = zlib.crc32(f"{self.weather}{words[0]}{path}/{attempt}".encode())
            return words[chance % 100 % len(words)] if chance % 100 < ROUGH else "succeeds"
        listed = scripts.get(name, [])
        return listed[number - 1] if number <= len(listed) else "succeeds"

    def shift(self, path: str) -> int:
        """Other items, iterations and attempts of a scope have other fates."""
        again = sum(int(s.replace("#", "@").partition("@")[2] or 1) - 1 for s in path.split("/"))
        return again + zlib.crc32(path.encode()) % self.spread

    def answer(self, command: Command, now: datetime) -> Answer:
        name, path = name_of(command), command.path
        match command:
            case Compute():
                return self.value(command), NOW
            case RunCompensation(attempt=attempt):
                word = self.nth(self.undo, BACKWARD, name, path, attempt)
                return _came_to(word, path), self.lasts(name, path) // 4
            case RunProbe(attempt=attempt):
                return self.told(name, path, attempt), NOW
            case StartChild() | CancelChild() | UndoChild():
                return self.child(command)
            case RunStep():
                return self.step(command, now)
            case _:
                raise TypeError(command)

    def step(self, command: RunStep, now: datetime) -> Answer:
        name, path = command.step.name, command.path
        odd = zlib.crc32(f"guard{path}".encode()) % 2
        if command.guards and now < HELD_UNTIL and odd:
            return Postponed("circuit bank", HELD_UNTIL), NOW
        if odd and any(isinstance(guard, CacheGuard) for guard in command.guards):
            return Remembered(name, _out(path)), NOW
        return _came_to(self.word(name, path, command.attempt), path), self.lasts(name, path)

    def lasts(self, name: str, path: str) -> timedelta:
        """Other items of a list take another time."""
        chance = zlib.crc32(f"{self.weather}lasts{path}".encode())
        most = self.takes.get(name, 11 if self.weather else 0)
        return timedelta(seconds=1 + chance % most if most else 0)

    def told(self, name: str, path: str, attempt: int) -> Outcome:
        word = self.nth(self.probes, ANSWERS, name, path, attempt)
        word = "unknown" if word == "succeeds" else word
        if word == "fails":
            return Failed(BROKEN)
        return Answered(word, _out(path) if word == "happened" else None)

    def child(self, command: StartChild | CancelChild | UndoChild) -> Answer:
        if isinstance(command, UndoChild) and zlib.crc32(command.path.encode()) % 4 == 3:
            return ChildOver("terminated"), timedelta(seconds=2)
        if not isinstance(command, StartChild):
            return GONE_BACK, timedelta(seconds=2)
        name = command.saga.name
        match self.word(name, command.path, 1):
            case "succeeds" | "is in doubt":
                over: Outcome = ChildOver("completed", _out(command.path))
            case "is declined":
                over = Failed(DECLINED)
            case _:
                over = ChildOver("compensated", None, Failure("ChildFailed", "no"))
        return over, self.lasts(name, command.path)

    def value(self, command: Compute) -> Outcome:
        """What a plain function gives."""
        match command.node:
            case Router() as router:
                return self.route(router, command.path)
            case Loop():
                return Succeeded(
                    Json("true" if self.holds(command.path, command.detail) else "false")
                )
            case Using():
                return Succeeded(command.input)
            case Pure(name=name) if name.startswith("list"):
                return Succeeded(Json(json.dumps(list(range(int(name[4:]))))))
            case Pure(name=name):
                failed = self.word(name, command.path, 1) == "is declined"
                return Failed(DECLINED) if failed else Succeeded(_out(command.path))
            case _:
                return Succeeded(Json('"key"'))

    def route(self, router: Router[Any, Any], path: str) -> Outcome:
        chosen = zlib.crc32(f"route{path}".encode()) % (len(router.names) + 1)
        known = [*router.names, "nowhere"]
        return Succeeded(Json(json.dumps(known[chosen if self.spread > 1 else 0])))

    def holds(self, path: str, iteration: int) -> bool:
        calm = self.spread == 1 and not self.weather
        return calm or iteration > zlib.crc32(f"until{path}".encode()) % 4


def _out(path: str) -> Json:
    """No two places give the same."""
    return Json(json.dumps(path))


def _came_to(word: str, path: str) -> Outcome:
    return Succeeded(_out(path), cost=1) if word == "succeeds" else OUTCOMES[word]


def drive(case: Case, world: World, **options: Any) -> Drive:
    """A run of *case* in *world*."""
    made: list[Drive] = []
    run = Drive(case.saga, lambda command: world.answer(command, made[0].now), **options)
    made.append(run)
    return run


some = st.sampled_from([*3 * ["n0", "n1", "n2"], *2 * ["n3", "n4"], *names()])
"""Names, those more often that more trees have."""


def _scripts(words: list[str], most: int = 3) -> st.SearchStrategy[dict[str, list[str]]]:
    """Scripts for a few of the names."""
    script = st.lists(st.sampled_from(words), min_size=1, max_size=most)
    return st.dictionaries(some, script, max_size=6)


durations = st.dictionaries(some, st.integers(1, 25), max_size=6)
lasting = st.fixed_dictionaries({name: st.integers(1, 25) for name in names()})
"""Everything takes time."""

worlds = st.builds(
    World,
    _scripts(FORWARD),
    _scripts(BACKWARD),
    _scripts(ANSWERS),
    durations,
    st.integers(1, 3),
    st.sampled_from([*30 * [0], *range(1, 100)]),
)

"""Where a run could have gone another way, and the runs that follow from that: a search by depth."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

Topic = Literal["order", "begin", "death", "trouble"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One point at which a run could go several ways. Way 0 is the plain one."""

    topic: Topic
    ways: tuple[str, ...]
    taken: int

    @property
    def text(self) -> str:
        """The way that was taken, in words."""
        return self.ways[self.taken]


class Chance:
    """Decides by a seed which answer arrives first; nothing else ever happens."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, topic: Topic, ways: Sequence[str]) -> int:
        """The number of the way to go."""
        return self._random.randrange(len(ways)) if topic == "order" else 0


@dataclass(slots=True)
class Path:
    """Goes a given way as far as it leads, then the plain one; and remembers all crossings."""

    given: tuple[int, ...] = ()
    taken: list[Choice] = field(default_factory=list)

    def pick(self, topic: Topic, ways: Sequence[str]) -> int:
        """The number of the way to go."""
        place = len(self.taken)
        way = self.given[place] if place < len(self.given) else 0
        self.taken.append(Choice(topic, tuple(ways), way))
        return way

    @property
    def strays(self) -> list[Choice]:
        """Where it left the plain way."""
        return [choice for choice in self.taken if choice.taken]

    def count(self, topic: Topic) -> int:
        """How often it left the plain way in this respect."""
        return sum(choice.topic == topic for choice in self.strays)

    @property
    def name(self) -> str:
        """The path as a short text, from which `from_name` makes it again."""
        last = max((i for i, c in enumerate(self.taken) if c.taken), default=-1)
        return ".".join(f"{i}:{c.taken}" for i, c in enumerate(self.taken[: last + 1]) if c.taken)

    @classmethod
    def from_name(cls, name: str) -> Path:
        """The path that was called *name*. ValueError for a text that is none."""
        strays: dict[int, int] = {}
        for part in filter(None, name.split(".")):
            place, _, way = part.partition(":")
            strays[int(place)] = int(way)
        return cls(tuple(strays.get(i, 0) for i in range(max(strays, default=-1) + 1)))


class Search:
    """All paths, those with the fewest oddities first, up to *bound* of them.

    One death a path, and one trouble before it; both together only where answers arrive in
    their plain order, because all pairs in all orders would be too many to say anything. Where
    what is side by side begins in another order, nothing else happens.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._open: list[tuple[int, int, int, int, tuple[int, ...]]] = [(0, 0, 0, 0, ())]
        self._number = count(1)
        self.run = 0

    @property
    def cut(self) -> bool:
        """Whether the bound left paths out."""
        return self.run >= self._bound and bool(self._open)

    def __iter__(self) -> Iterator[Path]:
        while self._open and self.run < self._bound:
            *_, given = heapq.heappop(self._open)
            self.run += 1
            path = Path(given)
            yield path
            self._branch(path)

    def _branch(self, path: Path) -> None:
        """Note the paths that leave this one after the place where it was left to itself."""
        orders = deaths = troubles = 0
        for place, choice in enumerate(path.taken):
            if place >= len(path.given) and _is_open(choice.topic, orders, deaths, troubles):
                before = tuple(c.taken for c in path.taken[:place])
                is_order, is_trouble = choice.topic == "order", choice.topic == "trouble"
                oddities = deaths + troubles + (not is_order)
                rank = (orders + is_order, oddities, troubles + is_trouble)
                for way in range(1, len(choice.ways)):
                    heapq.heappush(self._open, (*rank, next(self._number), (*before, way)))
            if choice.taken:
                orders += choice.topic == "order"
                deaths += choice.topic in ("death", "begin")
                troubles += choice.topic == "trouble"


def _is_open(topic: Topic, orders: int, deaths: int, troubles: int) -> bool:
    """Whether a path may leave the plain way here, after what it has been through."""
    if deaths:
        return False
    match topic:
        case "order":
            return True
        case "begin":
            return not (orders or troubles)
        case "trouble":
            return not troubles
        case "death":
            return not (troubles and orders)

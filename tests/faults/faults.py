"""What a wire proxy can do to a session, when, and how often it has done it."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from tests.faults.wire import Moment


class Point(StrEnum):
    """Where in a conversation a fault strikes."""

    COMMIT = "commit"
    """At a COMMIT, or at a statement that writes in a transaction of its own."""
    STATEMENT = "statement"
    """At any statement."""
    ALWAYS = "always"
    """At every message of either side, from now on."""
    MESSAGE = "message"
    """At the n-th message of a client."""


class Deed(StrEnum):
    """What a fault does."""

    CUT_BEFORE = "cut_before"
    CUT_AFTER = "cut_after"
    DELAY = "delay"
    DROP_REPLIES = "drop_replies"
    BLACK_HOLE = "black_hole"
    REFUSE = "refuse"
    TRICKLE = "trickle"
    CALL_BEFORE = "call_before"
    CALL_AFTER = "call_after"


@dataclass(eq=False, slots=True)
class Fault:
    """One planned fault. `fired` counts how often it struck; `heal` ends it.

    *matching* is a pattern looked for in the statements of the transaction, *session* one looked
    for in the application_name. The first *skip* that match are let go, then *times* are struck
    (None: all), each with *chance*.
    """

    deed: Deed
    point: Point
    matching: str = ""
    session: str = ""
    times: int | None = 1
    skip: int = 0
    chance: float = 1.0
    seconds: float = 0.0
    at_message: int = 0
    must_fire: bool = True
    act: Callable[[int], None] | None = None
    """Given the port that the client came from."""
    fired: int = 0
    first: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has struck for the first time."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server has answered a statement that was delayed, its client gone or not."""
    healed: asyncio.Event = field(default_factory=asyncio.Event)
    seed: int | None = None
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def wants(self, moment: Moment) -> bool:
        """Whether it strikes here; if so it is counted, and never more than `times`."""
        if self.point is Point.COMMIT and not moment.commits:
            return False
        if self.point not in (Point.COMMIT, Point.STATEMENT) or not self.hears(moment.session):
            return False
        text = moment.text if self.point is Point.COMMIT else moment.sql
        if re.search(self.matching, text, re.IGNORECASE) is None:
            return False
        return self.take()

    def take(self) -> bool:
        """Whether this occasion is one to strike at."""
        if self.healed.is_set() or (self.times is not None and self.fired >= self.times):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        return self.strike()

    def strike(self) -> bool:
        """Count it, unless chance spares this one."""
        if self.chance < 1.0 and self._draw.random() >= self.chance:
            return False
        self.fired += 1
        self.first.set()
        return True

    def take_back(self) -> None:
        """It did not come to it after all: the statement was refused."""
        self.fired -= 1

    def hears(self, session: str) -> bool:
        """Whether it is about sessions of this name, and still on."""
        return not self.healed.is_set() and is_named(self.session, session)

    def heal(self) -> None:
        """End it: what was held back goes on its way."""
        self.healed.set()

    def __str__(self) -> str:
        return f"{self.deed} at {self.point} {self.matching!r} {self.session!r}".strip()


def is_named(pattern: str, session: str) -> bool:
    """Whether a session's application_name is one of those that *pattern* means."""
    return re.search(pattern, session, re.IGNORECASE) is not None

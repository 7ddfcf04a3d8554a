"""What can go wrong: each seed has a few of the kinds, and each kind counts how often it struck."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

STRIKES = (
    "crash", "crash unseen", "told to end", "freeze", "cut", "cut one way", "presence lost",
    "renewals lost",
)  # fmt: skip
"""What befalls a process, at any of its turns and at any point of what it asks of the world."""

RATES = {
    # the database
    "append unknown, written": 0.04,
    "append unknown, not written": 0.04,
    "append unknown, written later": 0.04,
    "append busy": 0.05,
    "write unknown, done": 0.03,
    "write unknown, not done": 0.03,
    "claim lost on the way back": 0.04,
    "call refused": 0.02,
    "commit slow": 0.05,
    "answer slow": 0.03,
    "transaction rolled back": 0.1,
    "database away": 0.002,
    "hint lost": 0.3,
    "hint late": 0.3,
    # the broker
    "acknowledgement lost": 0.1,
    "batch refused": 0.1,
    "batch torn": 0.1,
    "batch stored twice": 0.1,
    "publish hangs": 0.05,
    "broker away": 0.1,
    # whom the steps speak to
    "effect fails": 0.12,
    "effect declined": 0.05,
    "effect applied, answer lost": 0.1,
    "effect not applied, answer lost": 0.08,
    "effect held": 0.05,
    "effect deaf": 0.04,
    "undo fails": 0.1,
    "undo applied, answer lost": 0.1,
    "probe fails": 0.15,
    "probe unknown": 0.1,
}
"""How often each kind strikes where it can, in a seed that has it."""

OF_A_SEED = ("clock askew", "shared state away")
"""What holds for a whole seed, or is not there."""

KINDS = (*STRIKES, *RATES, *OF_A_SEED)


class Faults:
    """The faults of one seed. After `heal` nothing goes wrong any more."""

    def __init__(self, chance: random.Random, say: Callable[[str], None]) -> None:
        self._random = chance
        self._say = say
        share = chance.choice((0.0, 0.15, 0.3, 0.5, 0.8))
        self.kinds = [kind for kind in KINDS if chance.random() < share]
        self.counts: Counter[str] = Counter()
        self._rates = {kind: RATES[kind] for kind in self.kinds if kind in RATES}
        self._strikes = [kind for kind in self.kinds if kind in STRIKES]
        self._at_points = chance.choice((0.0, 0.005, 0.02)) if self._strikes else 0.0
        few = chance.randint(1, 6) if self._strikes else 0
        self._at_turns = sorted(chance.randint(1, 1_500) for _ in range(few))
        self.on = True

    def heal(self) -> None:
        self.on = False

    def strikes(self, kind: str, where: str = "") -> bool:
        """Whether *kind* strikes here and now."""
        rate = self._rates.get(kind)
        if rate is None or not self.on or self._random.random() >= rate:
            return False
        self.note(kind, where)
        return True

    def note(self, kind: str, where: str = "") -> None:
        """Count a fault that was brought about."""
        self.counts[kind] += 1
        self._say(f"FAULT {kind} {where}")

    def at_point(self) -> str | None:
        """What befalls a process at a point of its way, if anything."""
        if not self._at_points or not self.on or self._random.random() >= self._at_points:
            return None
        return self._random.choice(self._strikes)

    def at_turn(self, turn: int) -> str | None:
        """What befalls a process before its next turn, if anything."""
        if not self._at_turns or turn < self._at_turns[0] or not self.on:
            return None
        self._at_turns.pop(0)
        return self._random.choice(self._strikes)

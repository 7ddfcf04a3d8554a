"""Which faults when: planned from a seed before anything happens, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.chaos.sizes import Size


@dataclass(frozen=True)
class Stroke:
    """One planned fault: when (seconds of the safety phase), what, on whom, how long."""

    at: float
    kind: str
    victim: int
    seconds: float


KINDS: dict[str, tuple[int, tuple[float, float]]] = {
    # kind: how often in a deck, and between what it lasts
    "kill worker": (3, (0, 0)),
    "kill all workers": (1, (0, 0)),
    "drain worker": (2, (0, 0)),
    "stop worker past its lease": (1, (28, 30)),
    "stop worker, cut its presence": (3, (2.5, 4)),
    "stop worker, hold its append": (2, (3, 4)),
    "kill relay": (1, (0, 0)),
    "drain relay": (1, (0, 0)),
    "stop relay past its lease": (2, (17, 19)),
    "crash postgres": (1, (0, 2.5)),
    "terminate sessions": (1, (0, 0)),
    "cut wires of worker": (1, (0, 0)),
    "cut wires of relay": (1, (0, 0)),
    "black hole for worker": (1, (2, 8)),
    "black hole for relay": (1, (2, 8)),
    "slow wires of worker": (1, (3, 6)),
    "lose commit after, worker": (2, (4, 6)),
    "lose commit before, worker": (2, (4, 6)),
    "lose commit after, api": (1, (6, 8)),
    "lose commit before, api": (1, (6, 8)),
    "lose commit after, relay": (1, (4, 6)),
    "end broker": (1, (0, 3)),
}
FIRST = ("stop worker past its lease", "stop relay past its lease")
"""What lasts longest begins first."""
LATER = (
    "crash postgres", "terminate sessions", "end broker", "kill relay", "drain relay",
    "cut wires of relay", "black hole for relay", "lose commit after, relay",
)  # fmt: skip
"""In a short run these come when the stopped relay is awake again: it must meet its successor."""


def schedule(size: Size, seed: int, *, broker: bool) -> list[Stroke]:
    """All strokes of a run, in order: decks with every kind in them, shuffled, one after another."""
    chance = random.Random(f"nemesis {seed}")
    strokes: list[Stroke] = []
    now, deck = 0.5, list[str]()
    while now < size.safety - 3:
        if not deck:
            deck = _deck(chance, size, now, broker=broker)
        kind = deck.pop()
        least, most = KINDS[kind][1]
        strokes.append(Stroke(now, kind, chance.randrange(100), chance.uniform(least, most)))
        now += 0.3 if kind in FIRST else size.gap * chance.uniform(0.5, 1.5)
    return strokes


def _deck(chance: random.Random, size: Size, now: float, *, broker: bool) -> list[str]:
    short = size.name == "smoke"
    deck = [
        kind
        for kind, (times, _) in KINDS.items()
        for _ in range(1 if short else times)
        if broker or kind != "end broker"
    ]
    chance.shuffle(deck)
    if now + 32 > size.safety:
        deck = [kind for kind in deck if kind not in FIRST] or deck
    later = [kind for kind in deck if short and kind in LATER]
    rest = [kind for kind in deck if kind not in (*FIRST, *later)]
    first = [kind for kind in FIRST if kind in deck]
    # Who is stopped meets its successor only if that is not stopped beside it.
    for kind in first:
        for _ in range(deck.count(kind) - 1):
            rest.insert(len(rest) // 2, kind)
    # What is popped first stands last.
    return later + rest + first[::-1]

"""How long a chaos run is, and how much of everything it has: CHAOS_SIZE and CHAOS_SEED."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """One size of a run. All times in seconds."""

    name: str
    warm_up: float
    safety: float
    gap: float
    """Between two faults, on average."""
    rate: float
    """Sagas a second."""
    poison_every: int
    floor: int
    """What of everything must have happened at least, or the run is void."""
    drain: float = 10.0
    ttl: float = 26.0
    """The shortest lease that the worker's other settings allow."""

    @property
    def patience(self) -> float:
        """Within this time of the healing everything must have ended."""
        return max(60.0, 3 * self.ttl + 30)


SIZES = {
    size.name: size
    for size in (
        Size("smoke", warm_up=3, safety=42, gap=1.8, rate=5, poison_every=10_000, floor=1),
        Size("nightly", warm_up=15, safety=840, gap=5, rate=5, poison_every=400, floor=5),
        Size("release", warm_up=30, safety=3_480, gap=5, rate=6, poison_every=600, floor=5),
    )
}


def chosen_size(default: str = "smoke") -> Size:
    """What the environment asks for."""
    return SIZES[os.environ.get("CHAOS_SIZE", default)]


def chosen_seed() -> int:
    """What the environment asks for, else any."""
    given = os.environ.get("CHAOS_SEED", "")
    return int(given) if given else random.SystemRandom().randrange(1_000_000)

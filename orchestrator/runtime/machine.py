"""What a machine gives that no two runs have in common: passing time, chance, fresh names.

The runtime takes them from here alone, so that a simulation can put its own in their place.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import MutableSequence
from typing import Any

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)
"""On Linux the plain monotonic clock stands still while the machine sleeps, and leases run out."""


def monotonic() -> float:
    """Seconds that have passed, asleep ones too, by a clock that nobody sets.

    Exact even while the loop is busy.
    """
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def jittered(seconds: float) -> float:
    """Half of *seconds* to all of them, so that those who failed together do not return together."""
    return seconds * random.uniform(0.5, 1.0)


def shuffle(items: MutableSequence[Any]) -> None:
    """Put *items* into another order."""
    random.shuffle(items)


def new_name() -> str:
    """A UUID that nobody else has."""
    return str(uuid.uuid4())


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then chance; ids sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))

"""Arithmetic of waiting: how long until the next attempt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

SECOND = timedelta(seconds=1)


def seconds(value: timedelta | float) -> timedelta:
    """Take a number as seconds; leave a timedelta alone."""
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waits: `min(initial * factor**n, cap)`, shortened by jitter to 50-100 %."""

    initial: timedelta = SECOND
    factor: float = 2.0
    cap: timedelta = 60 * SECOND
    jitter: bool = True

    def delay(self, retry: int, key: str) -> timedelta:
        """The wait before the *retry*-th retry (from 1).

        Jitter is drawn from *key*, not from chance, so that a plan made again after a crash is
        the same plan.
        """
        cap = self.cap.total_seconds()
        try:
            wait = min(self.initial.total_seconds() * float(self.factor) ** (retry - 1), cap)
        except OverflowError:
            wait = cap if self.initial else 0.0
        if self.jitter:
            wait *= 0.5 + 0.5 * _fraction(f"{key}:{retry}")
        return timedelta(seconds=wait)


@dataclass(frozen=True, slots=True)
class UndoPolicy:
    """How long a compensation is tried before a person is asked.

    `max_retries=None` retries until `give_up_after` has passed since the first failure.
    """

    backoff: Backoff = Backoff()
    max_retries: int | None = None
    give_up_after: timedelta = timedelta(hours=24)


def _fraction(key: str) -> float:
    """A number in [0, 1) that depends on *key* only."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big") / 2**56

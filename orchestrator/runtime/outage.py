"""What is said while the database is away: enough to know, not enough to fill a disk."""

from __future__ import annotations

import logging

from orchestrator.runtime import machine

log = logging.getLogger(__name__)

SAY_EVERY = 30.0


class Outage:
    """Says once that the database is away, then every half minute, and once that it is back.

    Several activities fail at once: it is back when all of those that failed have succeeded.
    """

    def __init__(self, every: float = SAY_EVERY) -> None:
        self._every = every
        self._failing: set[str] = set()
        self._since = 0.0
        self._say_at = 0.0
        self._said = False

    def failed(self, who: str, activity: str, error: Exception) -> None:
        """*who* could not do *activity*."""
        now = machine.monotonic()
        if not self._failing:
            self._since = now
        self._failing.add(activity)
        if now >= self._say_at:
            self._say_at, self._said = now + self._every, True
            log.warning("%s cannot %s: %s", who, activity, error)
        else:
            log.debug("%s cannot %s: %s", who, activity, error)

    def succeeded(self, who: str, activity: str) -> None:
        """*who* could do *activity*."""
        if activity not in self._failing:
            return
        self._failing.discard(activity)
        if not self._failing and self._said:
            self._said = False
            away = machine.monotonic() - self._since
            log.warning("%s: the database is back after %.1f s", who, away)

"""How a worker behaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.errors import InvalidInputError
from orchestrator.ports import SUSPECT

_POSITIVE = ("ttl", "renew_every", "command_timeout", "poll_every", "watch_every", "step_timeout")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker behaves. All times in seconds.

    `ttl >= renew_every + 4 * command_timeout + margin` must hold, or a slow database could
    cost a live worker its lease; other values are refused with InvalidInputError.
    """

    slots: int = 500
    ttl: float = 30.0
    renew_every: float = 1.0
    command_timeout: float = 5.0
    margin: float = 5.0
    poll_every: float = 0.2
    watch_every: float = 0.5
    announce_after: float = 0.2
    park_after: float = 1.0
    step_timeout: float = 600.0
    grace: float = 30.0
    claim_limit: int = 10
    abandoned_limit: int = 1000
    watchdog: bool = False

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)}; it must be a number above zero"
                )
        if not (self.margin >= 0 and self.grace >= 0):
            raise InvalidInputError("margin and grace cannot be below zero")
        needed = self.renew_every + 4 * self.command_timeout + self.margin
        if self.ttl < needed:
            raise InvalidInputError(
                f"a lease of {self.ttl:g} s is too short: it must be at least renew_every + "
                f"4 x command_timeout + margin = {needed:g} s; raise ttl or lower the others"
            )
        if self.slots < 1:
            raise InvalidInputError(f"slots is {self.slots}; a worker needs at least one")
        if self.claim_limit < SUSPECT:
            raise InvalidInputError(
                f"claim_limit is {self.claim_limit}; below {SUSPECT} what was only claimed, and "
                "never begun, would be parked"
            )

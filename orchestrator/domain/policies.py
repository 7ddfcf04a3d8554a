"""Arithmetic of policies: waits between attempts, circuits, rates, freshness and budgets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GLANCE = timedelta(milliseconds=250)
"""The shortest wait before one looks again at what others do."""


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


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit breaker by name: `failures` in a row open it for `reset`, then `probes` try."""

    name: str
    failures: int = 5
    reset: timedelta = 60 * SECOND
    probes: int = 1


@dataclass(frozen=True, slots=True)
class CircuitState:
    """What is remembered of a circuit. Open while `opened_at` is set; half open `reset` later.

    `failed` counts failures in a row, `passed` successes in a row while half open.
    """

    failed: int = 0
    passed: int = 0
    opened_at: datetime | None = None


def circuit_after(
    circuit: Circuit, state: CircuitState, now: datetime, *, succeeded: bool
) -> CircuitState:
    """The circuit after one more call: closed by `probes` successes, opened by `failures`."""
    if state.opened_at is None:
        if succeeded:
            return CircuitState()
        failed = state.failed + 1
        return CircuitState(failed, 0, now if failed >= circuit.failures else None)
    if now < state.opened_at + circuit.reset:
        # A straggler that was let through before it opened says nothing new.
        return state
    if not succeeded:
        return CircuitState(state.failed + 1, 0, now)
    passed = state.passed + 1
    return CircuitState() if passed >= circuit.probes else replace(state, passed=passed)


def held_by_circuit(
    circuit: Circuit, state: CircuitState, probes: Iterable[datetime], now: datetime
) -> datetime | None:
    """When to ask again; None: a call may go now. *probes* is when those that are out went."""
    if state.opened_at is None:
        return None
    if now < state.opened_at + circuit.reset:
        return state.opened_at + circuit.reset
    out = sorted(at for at in probes if now < at + circuit.reset)
    if len(out) < circuit.probes:
        return None
    return look_again(out[0], now, out[0] + circuit.reset)


def look_again(since: datetime, now: datetime, over: datetime) -> datetime:
    """When to look again at what others do *since* then: after as long again, at most until *over*.

    So who waits looks a few times only, and waits at most twice as long as it takes.
    """
    return min(over, now + max(now - since, GLANCE))


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket that all who use the name draw from: `calls` in each `per`, or that many at once."""

    name: str
    calls: int
    per: timedelta = SECOND

    @property
    def each(self) -> timedelta:
        """How long the bucket fills for one call, rounded up: never more than `calls` in a `per`."""
        return -(-self.per // self.calls)


LATE = 5 * SECOND
"""How long tokens may lie unused before those whose turns come no more count as gone."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is remembered of a rate: when it is full, and the turn of the last one in the line.

    `line_each` is how far apart turns were given; a changed rule moves the line accordingly.
    """

    full_at: datetime
    line_at: datetime | None = None
    line_each: timedelta = SECOND


def bucket_after(
    rate: Rate, bucket: Bucket | None, now: datetime, turn: datetime | None = None
) -> tuple[Bucket, datetime | None]:
    """The bucket after one more call, and None; or, with nothing taken, when the caller has its turn.

    Each that has to wait gets a turn of its own, so it asks twice and not once for each call of
    the others. A turn is a place in the line and no more: what the bucket holds still decides.
    """
    each, empty = rate.each, now + rate.calls * rate.each
    bucket = bucket or Bucket(now)
    # A stricter rule of the same name may have left more than this one can owe.
    after = min(max(bucket.full_at, now), empty) + each
    line_at = _line(bucket, each, now)
    if after <= empty and (turn is not None or line_at is None):
        # Also where it comes early: a caller whose clock is ahead would come early for ever.
        return Bucket(after, line_at, each), None
    if turn is not None and now < turn:
        until = turn
    else:
        soonest = now + (after - empty)
        until = line_at = soonest if line_at is None else max(soonest, line_at + each)
    # Not raised to now: that it has long been full says that nobody in the line comes any more.
    return Bucket(min(bucket.full_at, empty), line_at, each), until


def _line(bucket: Bucket, each: timedelta, now: datetime) -> datetime | None:
    """The last turn that was given; None when nobody waits, or nobody comes whose turn it is."""
    if bucket.line_at is None or bucket.line_at <= now or bucket.full_at + LATE <= now:
        return None
    return now + (bucket.line_at - now) * (each / bucket.line_each)


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Outputs by key, fresh for `ttl`, at most `max_size` of them."""

    name: str
    ttl: timedelta
    max_size: int = 1_000


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """No more than `limit` spent in each `per` (counted from 1970), or ever."""

    name: str
    limit: float
    per: timedelta | None = None


def period_start(budget: BudgetRule, now: datetime) -> datetime:
    """When the present period of a budget began."""
    return _EPOCH if budget.per is None else now - (now - _EPOCH) % budget.per


def spent_after(
    spent: float, since: datetime, amount: float, period: datetime
) -> tuple[float, datetime]:
    """What was spent, and the period that it counts for, after *amount* in *period*."""
    return (spent + amount, since) if since >= period else (amount, period)


def _fraction(key: str) -> float:
    """A number in [0, 1) that depends on *key* only."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big") / 2**56

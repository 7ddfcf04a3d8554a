"""The hash chain of one instance's events: what was written cannot be changed unnoticed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def genesis(saga_id: str) -> bytes:
    """What the first event of an instance chains to."""
    return hashlib.sha256(saga_id.encode()).digest()


def link(
    previous: bytes,
    saga_id: str,
    version: int,
    type_: str,
    node: str,
    attempt: int,
    epoch: int,
    recorded_at: datetime,
    meta: str,
    data: str,
) -> bytes:
    """sha256(previous hash || canonical bytes of the row).

    The canonical bytes are the short columns, a line each (none of them can hold a line break),
    then the length of *meta*, then *meta* and *data* as they were written. Times count in
    microseconds since 1970.
    """
    micros = (recorded_at - _EPOCH) // _MICROSECOND
    head = f"{saga_id}\n{version}\n{type_}\n{node}\n{attempt}\n{epoch}\n{micros}\n{len(meta)}\n"
    return hashlib.sha256(previous + f"{head}{meta}{data}".encode()).digest()

"""Ids that a plan can make: the same from the same facts."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def child_id(unique: str, now: datetime) -> str:
    """A UUIDv7 (RFC 9562) for the child that *unique* names, begun at *now*."""
    millis = (now - _EPOCH) // timedelta(milliseconds=1)
    rest = int.from_bytes(hashlib.blake2b(unique.encode(), digest_size=10).digest(), "big")
    value = (millis & (1 << 48) - 1) << 80 | rest
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))

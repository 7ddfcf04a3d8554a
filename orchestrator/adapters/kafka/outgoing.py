"""A record on its way to the broker."""

from __future__ import annotations

from dataclasses import dataclass

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record on its way; `told` names what it is made of, for people."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    told: str

"""The checkpoint of one shard, and who may move it."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.ports import Cursor, Feed


class Lease:
    """One owner's side of a checkpoint. It counts as long as nobody else has taken it."""

    def __init__(self, feed: Feed, name: str, owner: str, ttl: float) -> None:
        self._feed = feed
        self.name = name
        self._owner = owner
        self._ttl = timedelta(seconds=ttl)

    async def acquire(self) -> Cursor | None:
        """Take or extend it; None while another's runs."""
        return await self._feed.acquire(self.name, self._owner, self._ttl)

    async def move(self, cursor: Cursor) -> bool:
        """Move the checkpoint, never backwards, and extend; False when it is another's."""
        return await self._feed.checkpoint(self.name, self._owner, cursor, self._ttl)

    async def rewind(self, cursor: Cursor) -> bool:
        """As `move`, to any place: only where a person has asked for it."""
        return await self._feed.rewind(self.name, self._owner, cursor, self._ttl)

    async def give_up(self) -> None:
        await self._feed.give_up(self.name, self._owner)

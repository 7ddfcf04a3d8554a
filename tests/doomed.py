"""A worker that is never heard of again, as far as the queue sees it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.ports import SUSPECT, Claim, Definition, Store


async def begin(
    store: Store, owner: str, definitions: Sequence[Definition], limit: int = 1
) -> list[Claim]:
    """Claim what is due and begin it, as a worker does: suspects are reclaimed before."""
    begun = []
    for claim in await store.queue.claim(owner, limit, definitions):
        mine: Claim | None = claim
        if claim.claims >= SUSPECT:
            mine = await store.queue.reclaim(owner, claim.saga_id, claim.epoch)
        assert mine is not None
        begun.append(mine)
    return begun

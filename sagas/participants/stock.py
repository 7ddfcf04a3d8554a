"""The warehouse: holds articles for orders and releases them."""

from __future__ import annotations

import asyncpg

from sagas.participants.effects import apply, undo


class Stock:
    """What is on hand, and for which orders some of it is held."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def hold(self, order_id: str, article: str, quantity: int, *, key: str) -> str:
        """Take *quantity* off the shelf for an order; `OutOfStock` if there is less."""
        number = await apply(
            self._pool, HOLD, key, order_id=order_id, article=article, quantity=quantity
        )
        return f"hold-{number}"

    async def release(self, key: str) -> None:
        """Put back what was held under *key*."""
        await undo(self._pool, RELEASE, key)


HOLD = """
WITH hold AS (
    INSERT INTO participants.stock_hold AS h (key, order_id, article, quantity) VALUES ($1, $2, $3, $4)
    ON CONFLICT (key) DO UPDATE SET calls = h.calls + 1
    RETURNING *
), taken AS (
    UPDATE participants.stock_article a
    SET on_hand = CASE
        WHEN a.on_hand < h.quantity THEN participants.refuse('OutOfStock', format(
            '%s of article %s asked for, %s on hand', h.quantity, a.article, a.on_hand))
        ELSE a.on_hand - h.quantity END
    FROM hold h
    WHERE a.article = h.article AND h.state = 'live' AND h.calls = 1
    RETURNING a.article
)
SELECT h.*, CASE WHEN h.state = 'live' AND h.calls = 1 AND t.article IS NULL
    THEN participants.refuse('UnknownArticle', format('there is no article %s', h.article)) END
FROM hold h LEFT JOIN taken t ON true
"""

RELEASE = """
WITH hold AS (
    INSERT INTO participants.stock_hold AS h (key, state, calls, undos) VALUES ($1, 'barred', 0, 1)
    ON CONFLICT (key) DO UPDATE
    SET state = CASE h.state WHEN 'live' THEN 'undone' ELSE h.state END, undos = h.undos + 1
    RETURNING *
)
UPDATE participants.stock_article a SET on_hand = a.on_hand + h.quantity
FROM hold h
WHERE a.article = h.article AND h.state = 'undone' AND h.undos = 1
"""

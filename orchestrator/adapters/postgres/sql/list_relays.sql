-- The relays that there ever were, and how far each has come. No locks.
SELECT relay, position, owner, lease_until, lease_until > clock_timestamp() AND owner IS NOT NULL AS alive
FROM relay_cursor
ORDER BY relay

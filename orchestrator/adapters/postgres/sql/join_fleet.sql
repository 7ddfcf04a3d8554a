-- Enters a worker with a lease, and forgets workers that went long ago.
-- Locks: worker rows that nobody uses any more.
WITH forgotten AS (
    DELETE FROM worker WHERE retired_at < clock_timestamp() - interval '7 days'
)
INSERT INTO worker (id, label, lease_until, presence_key, namespace, definitions)
VALUES ($1, $2, clock_timestamp() + $3::interval, $4, $5, $6::text::jsonb)
RETURNING clock_timestamp() AS now

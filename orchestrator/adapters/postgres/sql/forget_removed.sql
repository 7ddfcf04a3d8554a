-- Removes what was left behind of removed instances, once it is published: up to $1, ids below $2, at
-- most $3 at once. Only with saga.retention on.
DELETE FROM event WHERE (saga_id, version) IN (
    SELECT saga_id, version FROM event
    WHERE type = 'SagaRemoved' AND position <= $1 AND saga_id < $2::uuid
    LIMIT $3
)

-- Takes one's own instance again under a new epoch. Unless $4 says that it counts in any case, it counts
-- as a claim does: up to three.
-- Locks: the saga row, and waits for it: a transaction of ours still under way ends before.
-- Leans on pk_saga.
WITH mine AS (
    UPDATE saga s
    SET epoch = s.epoch + 1, claims = s.claims + ($4::bool OR s.claims < 3)::int, updated_at = clock_timestamp()
    WHERE s.id = $2 AND s.owner IS NOT DISTINCT FROM $1 AND s.epoch = $3
    RETURNING s.id, s.name, s.version, s.fingerprint, s.epoch, s.head, s.status, s.inbox_seq,
        s.claims, s.created_at, s.context, s.parent, s.parent_node, s.inbox_seen
)
SELECT c.id::text AS id, c.name, c.version, c.fingerprint, c.epoch, c.head, c.status, c.inbox_seq,
    c.claims, c.created_at, c.context,
    (SELECT i.input FROM saga_input i WHERE i.saga_id = c.id AND c.head = 0) AS input,
    c.parent::text AS parent, c.parent_node, c.inbox_seen
FROM mine c

-- Takes up to $2 instances of the definitions ($4, $5) that are due and unowned. From the third
-- claim without an event on it is not the claim that counts but the beginning (reclaim_saga).
-- Locks: the worker's own row (shared: nobody can retire it meanwhile), then saga rows that nobody
-- else has locked. Leans on ix_saga_due; MATERIALIZED, or a nested loop would claim more than $2.
WITH me AS MATERIALIZED (
    SELECT id FROM worker WHERE id = $1 AND retired_at IS NULL FOR SHARE
), due AS MATERIALIZED (
    SELECT found.id
    FROM unnest($4::text[], $5::int[]) AS d (name, version)
    CROSS JOIN LATERAL (
        SELECT s.id FROM saga s
        WHERE s.namespace = $3 AND s.name = d.name AND s.version = d.version
            AND s.owner IS NULL AND s.due_at IS NOT NULL AND s.due_at <= statement_timestamp()
            AND EXISTS (SELECT FROM me)
        ORDER BY s.due_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS found
    LIMIT $2
), claimed AS (
    UPDATE saga s
    SET owner = $1, epoch = s.epoch + 1, claims = s.claims + (s.claims < 3)::int, due_at = NULL,
        updated_at = clock_timestamp()
    WHERE s.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING s.id, s.name, s.version, s.fingerprint, s.epoch, s.head, s.status, s.inbox_seq,
        s.claims, s.created_at, s.context, s.parent, s.parent_node, s.inbox_seen
)
SELECT c.id::text AS id, c.name, c.version, c.fingerprint, c.epoch, c.head, c.status, c.inbox_seq,
    c.claims, c.created_at, c.context,
    (SELECT i.input FROM saga_input i WHERE i.saga_id = c.id AND c.head = 0) AS input,
    c.parent::text AS parent, c.parent_node, c.inbox_seen
FROM me
LEFT JOIN claimed c ON true

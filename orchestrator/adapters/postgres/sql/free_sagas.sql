-- Frees what a retired worker held, due at once. A statement of its own after the retirement, so
-- that it sees what the worker claimed last.
-- Locks: saga rows in the order of their ids, after the worker's row. Leans on ix_saga_owner.
WITH held AS MATERIALIZED (
    SELECT id FROM saga WHERE owner = $1 ORDER BY id FOR UPDATE
)
UPDATE saga s
SET owner = NULL, due_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE s.id = ANY (ARRAY(SELECT id FROM held)) AND s.owner IS NOT DISTINCT FROM $1

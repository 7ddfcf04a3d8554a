-- Frees what a retired worker held, due at once; what may itself be what ends its workers, after a
-- pause that grows with each claim in vain, so that it does not end them all in a row. The exponent
-- is bounded as well: no interval holds two to the power of 46 pauses, and none here would be freed.
-- A statement of its own after the retirement, so that it sees what the worker claimed last.
-- Locks: saga rows in the order of their ids, after the worker's row. Leans on ix_saga_owner.
WITH held AS MATERIALIZED (
    SELECT id FROM saga WHERE owner = $1 ORDER BY id FOR UPDATE
)
UPDATE saga s
SET owner = NULL, updated_at = clock_timestamp(), due_at = clock_timestamp() + CASE
        WHEN s.claims < 3 THEN interval '0'
        ELSE least(power(2, least(s.claims - 3, 5)) * interval '250 ms', interval '5 s')
    END
WHERE s.id = ANY (ARRAY(SELECT id FROM held)) AND s.owner IS NOT DISTINCT FROM $1

-- Gives instances of one worker back, due after a delay; with $4 the last claim is not counted. (Those
-- of suspects were not, see claim_sagas.)
-- Locks: saga rows in the order of their ids. Leans on pk_saga.
WITH mine AS MATERIALIZED (
    SELECT id FROM saga WHERE id = ANY ($2::uuid[]) AND owner = $1 ORDER BY id FOR UPDATE
)
UPDATE saga s
SET owner = NULL, due_at = clock_timestamp() + $3::interval,
    claims = s.claims - ($4::bool AND s.claims BETWEEN 1 AND 2)::int, updated_at = clock_timestamp()
WHERE s.id = ANY (ARRAY(SELECT id FROM mine)) AND s.owner IS NOT DISTINCT FROM $1

-- Takes an event out of those that were set aside; the last one frees its saga.
-- Locks: the row of the saga, locked already. Leans on saga_parked_pkey and saga_consumed_pkey.
WITH taken AS (
    DELETE FROM saga_parked WHERE consumer_group = $1 AND saga_id = $2 AND version = $3::bigint
)
UPDATE saga_consumed SET parked = EXISTS (
    SELECT FROM saga_parked WHERE consumer_group = $1 AND saga_id = $2 AND version > $3::bigint
)
WHERE consumer_group = $1 AND saga_id = $2

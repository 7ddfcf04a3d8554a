-- The last event of a saga that was taken in. No locks. Leans on saga_consumed_pkey.
SELECT version FROM saga_consumed WHERE consumer_group = $1 AND saga_id = $2

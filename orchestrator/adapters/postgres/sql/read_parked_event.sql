-- The first of the events of a saga that were set aside. The row of the saga is locked already.
-- Leans on saga_parked_pkey.
SELECT version, topic, partition, "offset", timestamp, value, headers::text AS headers
FROM saga_parked WHERE consumer_group = $1 AND saga_id = $2 ORDER BY version LIMIT 1

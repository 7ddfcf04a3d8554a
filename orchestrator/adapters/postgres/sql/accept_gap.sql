-- Lets a saga go on with event $3, though events before it are missing. Never takes it back.
-- Locks: the row of the saga. Leans on saga_consumed_pkey.
INSERT INTO saga_consumed (consumer_group, saga_id, version, topic, partition, "offset")
VALUES ($1, $2, $3::bigint - 1, '', 0, 0)
ON CONFLICT (consumer_group, saga_id) DO UPDATE
SET version = EXCLUDED.version, updated_at = clock_timestamp()
WHERE saga_consumed.version < EXCLUDED.version
RETURNING version

-- Takes event $3 of a saga in: the next one, or the first where nothing is known of the saga and
-- it is number 1 (or $7 allows any). No row where it is neither.
-- Locks: the row of the saga, until the handler's transaction ends; that is what keeps a consumer
-- that lost its partition from having an effect. Leans on saga_consumed_pkey.
INSERT INTO saga_consumed (consumer_group, saga_id, version, topic, partition, "offset")
SELECT $1, $2, $3::bigint, $4, $5::int, $6::bigint
WHERE $3::bigint = 1 OR $7::bool
    OR EXISTS (SELECT FROM saga_consumed WHERE consumer_group = $1 AND saga_id = $2)
ON CONFLICT (consumer_group, saga_id) DO UPDATE
SET version = EXCLUDED.version, topic = EXCLUDED.topic, partition = EXCLUDED.partition,
    "offset" = EXCLUDED."offset", updated_at = clock_timestamp()
WHERE saga_consumed.version = EXCLUDED.version - 1
RETURNING parked

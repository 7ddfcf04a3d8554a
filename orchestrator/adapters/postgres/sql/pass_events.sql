-- Takes events in that no handler wants, at most one of each saga; those that are the next ones of sagas
-- that are not parked, or the first. Names the sagas whose event is in; the others need a closer look.
-- Locks: their rows, in the order of their ids, those skipped that somebody holds: no handler at work
-- on one saga holds the others up. Leans on saga_consumed_pkey.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::bigint[], $4::text[], $5::int[], $6::bigint[])
        AS i (saga_id, version, topic, partition, "offset")
), free AS MATERIALIZED (
    SELECT c.saga_id FROM saga_consumed c JOIN input i ON i.saga_id = c.saga_id
    WHERE c.consumer_group = $1 AND c.version = i.version - 1 AND NOT c.parked
    ORDER BY c.saga_id
    FOR UPDATE OF c SKIP LOCKED
), moved AS (
    UPDATE saga_consumed c
    SET version = i.version, topic = i.topic, partition = i.partition, "offset" = i."offset",
        updated_at = clock_timestamp()
    FROM input i JOIN free f ON f.saga_id = i.saga_id
    WHERE c.consumer_group = $1 AND c.saga_id = i.saga_id AND c.version = i.version - 1
    RETURNING c.saga_id
), made AS (
    INSERT INTO saga_consumed (consumer_group, saga_id, version, topic, partition, "offset")
    SELECT $1, i.saga_id, i.version, i.topic, i.partition, i."offset" FROM input i
    WHERE (i.version = 1 OR $7::bool) AND NOT EXISTS (
        SELECT FROM saga_consumed c WHERE c.consumer_group = $1 AND c.saga_id = i.saga_id
    )
    ORDER BY i.saga_id
    ON CONFLICT (consumer_group, saga_id) DO NOTHING
    RETURNING saga_id
)
SELECT saga_id FROM moved UNION ALL SELECT saga_id FROM made

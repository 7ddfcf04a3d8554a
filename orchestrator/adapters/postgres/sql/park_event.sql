-- Sets an event aside, and says so on the row of its saga, which is locked already.
-- Leans on saga_consumed_pkey.
WITH marked AS (
    UPDATE saga_consumed SET parked = true WHERE consumer_group = $1 AND saga_id = $2
)
INSERT INTO saga_parked (
    consumer_group, saga_id, version, topic, partition, "offset", timestamp, value, headers, reason
)
VALUES ($1, $2, $3::bigint, $4, $5::int, $6::bigint, $7::bigint, $8::bytea, $9::json, $10)

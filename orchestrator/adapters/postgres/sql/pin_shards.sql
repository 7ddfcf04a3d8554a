-- Makes the checkpoints of the shards $1/0 to $1/($2 - 1), unless this relay has shards already, and
-- counts the shards that it has. A checkpoint from the time before shards passes its position on.
-- Locks: the row of the relay from before. Runs under lock_shards. Leans on pk_relay_cursor.
WITH known AS MATERIALIZED (
    SELECT count(*) AS shards FROM relay_cursor WHERE starts_with(relay, $1 || '/')
), before AS (
    DELETE FROM relay_cursor USING known WHERE relay = $1 AND known.shards = 0
    RETURNING position
), made AS (
    INSERT INTO relay_cursor (relay, position, epoch, lease_until)
    SELECT $1 || '/' || n, coalesce((SELECT position FROM before), 0), 1, clock_timestamp()
    FROM known, generate_series(0, $2::integer - 1) AS n
    WHERE known.shards = 0
    RETURNING relay
)
SELECT known.shards + (SELECT count(*) FROM made) AS shards FROM known

-- Takes one call out of a rate (`until` is null) or says when the next may be. $3 is how long the
-- bucket fills for one call, $4 for all. No row: the rate was made meanwhile, ask again.
-- Arithmetic: policies.bucket_after. Locks: the rate, made here when it is new. Leans on pk_rate.
WITH locked AS MATERIALIZED (
    SELECT r.full_at FROM rate r WHERE r.namespace = $1 AND r.name = $2 FOR NO KEY UPDATE
), timed AS MATERIALIZED (
    SELECT l.full_at, clock_timestamp() AS now FROM locked l
), asked AS MATERIALIZED (
    -- A stricter rule of the same name may have left more than this one can owe.
    SELECT t.full_at AS was, least(greatest(t.full_at, t.now), t.now + $4::interval) AS full_at,
           t.now + $4::interval AS empty_at
    FROM timed t
), taken AS (
    UPDATE rate r
    SET full_at = CASE
        WHEN a.full_at + $3::interval <= a.empty_at THEN a.full_at + $3::interval ELSE a.full_at
    END
    FROM asked a
    WHERE r.namespace = $1 AND r.name = $2
        AND (a.full_at + $3::interval <= a.empty_at OR a.full_at <> a.was)
), born AS (
    INSERT INTO rate (namespace, name, full_at)
    SELECT $1, $2, clock_timestamp() + $3::interval WHERE NOT EXISTS (SELECT FROM locked)
    ON CONFLICT DO NOTHING
    RETURNING full_at
)
SELECT CASE
    WHEN a.full_at + $3::interval > a.empty_at THEN a.full_at + $3::interval - $4::interval
END AS until FROM asked a
UNION ALL
SELECT NULL FROM born

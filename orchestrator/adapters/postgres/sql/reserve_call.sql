-- Takes one call out of a rate (`until` is null), or gives a place in the line: whose turn, $5, has
-- come goes before who comes now. $3 is how long the bucket fills for one call, $4 for all; $6 is
-- how late a turn may be used before the line counts as left. No row: the rate was made meanwhile,
-- ask again. Arithmetic: policies.bucket_after.
-- Locks: the rate, made here when it is new. Leans on pk_rate.
WITH locked AS MATERIALIZED (
    SELECT r.full_at, r.line_at, r.line_each FROM rate r
    WHERE r.namespace = $1 AND r.name = $2 FOR NO KEY UPDATE
), timed AS MATERIALIZED (
    SELECT l.*, clock_timestamp() AS now FROM locked l
), asked AS MATERIALIZED (
    -- A stricter rule of the same name may have left more than this one can owe, and a longer line.
    SELECT t.now, least(t.full_at, t.now + $4::interval) AS was,
        least(greatest(t.full_at, t.now), t.now + $4::interval) + $3::interval AS after,
        CASE WHEN t.line_at > t.now AND t.full_at > t.now - $6::interval THEN
            t.now + (t.line_at - t.now)
                * (extract(epoch FROM $3::interval) / extract(epoch FROM t.line_each))::float8
        END AS line_at
    FROM timed t
), told AS MATERIALIZED (
    SELECT a.*, CASE
        -- Also where it comes early: a caller whose clock is ahead would come early for ever.
        WHEN a.after <= a.now + $4::interval AND ($5::timestamptz IS NOT NULL OR a.line_at IS NULL)
            THEN NULL
        WHEN a.now < $5::timestamptz THEN $5::timestamptz
        ELSE greatest(a.after - $4::interval, a.line_at + $3::interval)
    END AS until
    FROM asked a
), noted AS (
    UPDATE rate r
    SET full_at = CASE WHEN t.until IS NULL THEN t.after ELSE t.was END,
        line_at = CASE WHEN t.until IS NULL OR t.now < $5::timestamptz THEN t.line_at ELSE t.until END,
        line_each = $3::interval
    FROM told t
    WHERE r.namespace = $1 AND r.name = $2
), born AS (
    INSERT INTO rate (namespace, name, full_at)
    SELECT $1, $2, clock_timestamp() + $3::interval WHERE NOT EXISTS (SELECT FROM locked)
    ON CONFLICT DO NOTHING
    RETURNING full_at
)
SELECT t.until FROM told t
UNION ALL
SELECT NULL FROM born

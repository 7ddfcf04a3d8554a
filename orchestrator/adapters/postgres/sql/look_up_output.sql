-- What a cache says of a key: its fresh output, or until when another computes it, or (both null)
-- that $4 is to compute it, which is noted. No row: the entry was made meanwhile, ask again.
-- Locks: the entry unless its output is fresh, made here when it is new. Leans on pk_cache_entry.
WITH seen AS MATERIALIZED (
    SELECT e.output FROM cache_entry e
    WHERE e.digest = $3 AND clock_timestamp() < e.kept_at + $5::interval
), locked AS MATERIALIZED (
    -- Found by its key alone: it may have changed while we waited for the lock.
    SELECT e.output, e.kept_at, e.holder, e.held_since, e.held_until FROM cache_entry e
    WHERE e.digest = $3 AND NOT EXISTS (SELECT FROM seen)
    FOR NO KEY UPDATE
), asked AS MATERIALIZED (
    SELECT l.*, clock_timestamp() AS now FROM locked l
), told AS MATERIALIZED (
    SELECT a.now,
        CASE WHEN a.now < a.kept_at + $5::interval THEN a.output END AS output,
        CASE
            WHEN a.now < a.kept_at + $5::interval OR a.holder = $4 THEN NULL
            WHEN a.now < a.held_until THEN least(
                a.held_until, a.now + greatest(a.now - a.held_since, $7::interval)
            )
        END AS until
    FROM asked a
), claimed AS (
    UPDATE cache_entry e
    SET holder = $4, held_since = t.now, held_until = t.now + $6::interval
    FROM told t
    WHERE e.digest = $3 AND t.output IS NULL AND t.until IS NULL
), born AS (
    INSERT INTO cache_entry (namespace, name, digest, holder, held_since, held_until)
    SELECT $1, $2, $3, $4, clock_timestamp(), clock_timestamp() + $6::interval
    WHERE NOT EXISTS (SELECT FROM seen) AND NOT EXISTS (SELECT FROM locked)
    ON CONFLICT DO NOTHING
    RETURNING digest
)
SELECT s.output, NULL::timestamptz AS until FROM seen s
UNION ALL
SELECT t.output, t.until FROM told t
UNION ALL
SELECT NULL, NULL FROM born

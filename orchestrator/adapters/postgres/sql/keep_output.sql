-- Stores what the holder of an entry computed, and drops the oldest entries over $6 and those that
-- a silent holder left empty; nothing when the turn is another's now.
-- Locks: the entry, then entries that go, skipping those in use: keepers never wait for each other.
-- Leans on pk_cache_entry and ix_cache_entry_kept.
WITH kept AS (
    UPDATE cache_entry
    SET output = $5::json, kept_at = clock_timestamp(),
        holder = NULL, held_since = NULL, held_until = NULL
    WHERE digest = $3 AND holder = $4
    RETURNING digest
), doomed AS MATERIALIZED (
    (
        SELECT e.digest, e.kept_at FROM cache_entry e
        WHERE e.namespace = $1 AND e.name = $2 AND e.kept_at IS NOT NULL AND e.digest <> $3
        ORDER BY e.kept_at DESC
        OFFSET greatest($6::int - 1, 0)
    )
    UNION ALL
    SELECT e.digest, e.kept_at FROM cache_entry e
    WHERE e.namespace = $1 AND e.name = $2 AND e.kept_at IS NULL AND e.digest <> $3
        AND e.held_until <= clock_timestamp()
), going AS MATERIALIZED (
    SELECT e.digest FROM doomed d
    JOIN cache_entry e ON e.digest = d.digest
    WHERE e.kept_at IS NOT DISTINCT FROM d.kept_at
        AND (e.holder IS NULL OR e.held_until <= clock_timestamp())
        AND EXISTS (SELECT FROM kept)
    FOR NO KEY UPDATE OF e SKIP LOCKED
)
DELETE FROM cache_entry e USING going g WHERE e.digest = g.digest

-- The workers that nobody has retired, the oldest first, with what shows whether they live. No locks.
-- Older workers do not say their namespace.
SELECT w.id::text AS id, w.label, w.joined_at, w.lease_until, w.definitions,
    w.lease_until > clock_timestamp() AND (
        w.presence_key IS NULL
        OR EXISTS (
            SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (l.classid::bigint << 32 | l.objid::bigint) = w.presence_key
        )
    ) AS alive
FROM worker w
WHERE w.retired_at IS NULL AND (w.namespace IS NULL OR w.namespace = $1)
ORDER BY w.joined_at, w.id

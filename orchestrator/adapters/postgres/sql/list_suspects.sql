-- Workers whose lease ran out or whose presence lock nobody holds. No locks.
-- Right after a start of the server nobody has had the time to be present again.
SELECT w.id::text AS id, w.presence_key, w.lease_until < clock_timestamp() AS expired
FROM worker w
WHERE w.retired_at IS NULL
    AND (
        w.lease_until < clock_timestamp()
        OR (
            w.presence_key IS NOT NULL
            AND clock_timestamp() > pg_postmaster_start_time() + interval '3 s'
            AND NOT EXISTS (
                SELECT FROM pg_locks l
                WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
                    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND (l.classid::bigint << 32 | l.objid::bigint) = w.presence_key
            )
        )
    )

-- Transactions of the whole server, the oldest first, that keep dead rows from being removed. No locks.
-- In another database who only reads keeps none of ours; a number of its own holds everybody's horizon.
-- Of other roles' sessions only a role with pg_read_all_stats sees when they began.
SELECT extract(epoch FROM clock_timestamp() - began)::float8 AS seconds, who
FROM (
    SELECT xact_start AS began,
        format('%s (process %s, database %s)', coalesce(nullif(application_name, ''), usename),
            pid, datname) AS who
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid()
        AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL AND datname = current_database())
        AND backend_type = 'client backend' AND xact_start IS NOT NULL
    UNION ALL
    SELECT prepared, format('the prepared transaction %s (database %s)', gid, database)
    FROM pg_prepared_xacts
) AS t
ORDER BY began
LIMIT 3

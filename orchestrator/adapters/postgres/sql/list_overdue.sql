-- Instances that nobody took within a minute of being due, by definition. No locks.
-- Leans on ix_saga_due: from one definition to the next, so that those which only wait are not read.
WITH RECURSIVE waiting AS (
    (
        SELECT s.namespace, s.name, s.version FROM saga s
        WHERE s.owner IS NULL AND s.due_at IS NOT NULL
        ORDER BY s.namespace, s.name, s.version LIMIT 1
    )
    UNION ALL
    SELECT next.* FROM waiting w CROSS JOIN LATERAL (
        SELECT s.namespace, s.name, s.version FROM saga s
        WHERE s.owner IS NULL AND s.due_at IS NOT NULL
            AND (s.namespace, s.name, s.version) > (w.namespace, w.name, w.version)
        ORDER BY s.namespace, s.name, s.version LIMIT 1
    ) AS next
)
SELECT w.name, w.version, sum(o.count)::bigint AS count
FROM waiting w CROSS JOIN LATERAL (
    SELECT count(*) FROM saga s
    WHERE s.namespace = w.namespace AND s.name = w.name AND s.version = w.version
        AND s.owner IS NULL AND s.due_at IS NOT NULL
        AND s.due_at < statement_timestamp() - interval '1 min'
) AS o
WHERE o.count > 0
GROUP BY w.name, w.version ORDER BY w.name, w.version

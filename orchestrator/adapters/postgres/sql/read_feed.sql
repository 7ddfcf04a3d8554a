-- Events by position, with what a reader needs of their instances. No locks.
-- Leans on event_*_position (merged over the partitions) and pk_saga.
SELECT e.saga_id::text AS saga_id, e.version, e.type, e.node, e.attempt, e.epoch, e.data, e.meta,
    e.recorded_at, e.hash, e.position,
    coalesce(s.name, '') AS name, coalesce(s.version, 0) AS saga_version,
    coalesce(s.correlation_id, '') AS correlation_id
FROM event e
LEFT JOIN LATERAL (
    SELECT name, version, correlation_id FROM saga WHERE id = e.saga_id LIMIT 1
) AS s ON true
WHERE e.position > $1 AND e.position <= $2
ORDER BY e.position
LIMIT $3

-- Events by position, with what a reader needs of their instances: $3 of them at most, and at most
-- $4 bytes of payload, but for the last one. `total` counts the bytes. With $6 > 1, only those of
-- shard $5 of $6: `orchestrator.domain.shards` computes the same. No locks.
-- Leans on event_*_position (merged over the partitions) and pk_saga; a length needs no detoasting.
-- After a repair one has to know which way the saga was going: `turn`, looked up by pk_event. The types
-- are those of domain/standing.py.
SELECT e.saga_id::text AS saga_id, e.version, e.type, e.node, e.attempt, e.epoch, e.data, e.meta,
    e.recorded_at, e.hash, e.position,
    -- Of one that was removed there is no row any more: its last event says what it was.
    coalesce(s.name, CASE WHEN e.type = 'SagaRemoved' THEN e.data->>'saga' END, '') AS name,
    coalesce(
        s.version, CASE WHEN e.type = 'SagaRemoved' THEN (e.data->>'saga_version')::int END, 0
    ) AS saga_version,
    coalesce(s.correlation_id, '') AS correlation_id,
    s.key, s.parent::text AS parent, coalesce(s.tags, '{}')::text AS tags,
    CASE WHEN e.type IN ('SagaResumed', 'StepRetried', 'CompensationSkipped', 'StepResolved') THEN (
        SELECT t.type FROM event t
        WHERE t.saga_id = e.saga_id AND t.version < e.version
            AND t.type IN ('SagaStarted', 'CompensationStarted', 'UndoRequested')
        ORDER BY t.version DESC LIMIT 1
    ) END AS turn,
    e.total
FROM (
    SELECT *, sum(octet_length(data::text)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS total
    FROM event
    WHERE position > $1 AND position <= $2
        AND (
            $6::integer = 1
            OR (
                (get_byte(uuid_send(saga_id), 2) # get_byte(uuid_send(saga_id), 14)) << 8
                | (get_byte(uuid_send(saga_id), 3) # get_byte(uuid_send(saga_id), 15))
            ) % $6::integer = $5::integer
        )
    ORDER BY position
    LIMIT $3
) AS e
LEFT JOIN LATERAL (
    SELECT name, version, correlation_id, key, parent, tags FROM saga WHERE id = e.saga_id LIMIT 1
) AS s ON true
WHERE e.total - octet_length(e.data::text) < $4
ORDER BY e.position

-- Leaves one event behind for each instance that was removed, so that readers hear of it in its turn.
-- Locks: the feed's gate, shared, before a position is handed out, as every append does.
WITH gate AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtext('saga'), hashtext('gate'))
)
INSERT INTO event (saga_id, version, type, node, attempt, epoch, data, meta, recorded_at, hash)
SELECT r.saga_id, r.version, 'SagaRemoved', '', 0, r.epoch, r.data::json, '{}', $5, r.hash
FROM gate, unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $6::bytea[])
    AS r (saga_id, version, epoch, data, hash)

-- The events of one instance after a version, in order. Leans on pk_event, one partition.
SELECT version, position, type, node, attempt, epoch, data, meta, recorded_at, hash
FROM event
WHERE saga_id = $1 AND version > $2
ORDER BY version

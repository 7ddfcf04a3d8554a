-- Instances that ended before $1 and are of no use to anybody: all of their events are published ($6),
-- and no parent is left that could take them back. At most $5 of them, after id $2 and below $3, of one
-- saga where $4 names it; each with the last of its events.
-- Locks: their rows, in the order of their ids, those skipped that somebody holds. Leans on pk_saga, and
-- on pk_event for the last event.
SELECT s.id::text AS id, s.name, s.version AS saga_version, s.epoch,
    coalesce(l.version, 0) AS head, l.hash
FROM saga s
LEFT JOIN LATERAL (
    SELECT e.version, e.hash, e.position FROM event e
    WHERE e.saga_id = s.id ORDER BY e.version DESC LIMIT 1
) AS l ON true
WHERE s.id > $2::uuid AND s.id < $3::uuid
    AND s.status IN ('completed', 'compensated', 'terminated')
    AND s.updated_at < $1
    AND ($4::text IS NULL OR s.name = $4)
    AND NOT EXISTS (SELECT FROM saga p WHERE p.id = s.parent)
    AND coalesce(l.position, 0) <= $6
ORDER BY s.id
LIMIT $5
FOR UPDATE OF s SKIP LOCKED

-- Positions between the checkpoint of a relay and the last one handed out. No locks.
SELECT greatest(
    CASE WHEN p.is_called THEN p.last_value ELSE 0 END
    - coalesce((SELECT position FROM relay_cursor WHERE relay = $1), 0), 0
) AS lag
FROM event_position p

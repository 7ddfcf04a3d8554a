-- Positions between the checkpoint of a relay, that of its last shard, and the last one handed out.
-- No locks.
SELECT greatest(
    CASE WHEN p.is_called THEN p.last_value ELSE 0 END
    - coalesce(
        (SELECT min(position) FROM relay_cursor WHERE relay = $1 OR starts_with(relay, $1 || '/')), 0
    ), 0
) AS lag
FROM event_position p

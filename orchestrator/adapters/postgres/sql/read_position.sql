-- The last position that was handed out, be it committed or not. No locks.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS high FROM event_position

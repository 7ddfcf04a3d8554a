-- Sets a checkpoint to any place, while owner and epoch hold: only where somebody has asked for it.
-- Locks: the row of the relay. Leans on pk_relay_cursor.
UPDATE relay_cursor
SET position = $4, lease_until = clock_timestamp() + $5::interval, updated_at = clock_timestamp()
WHERE relay = $1 AND owner = $2 AND epoch = $3
RETURNING position

-- Moves a checkpoint, never backwards, while owner and epoch hold, and extends the lease.
-- Locks: the row of the relay. Leans on pk_relay_cursor.
UPDATE relay_cursor
SET position = greatest(position, $4), lease_until = clock_timestamp() + $5::interval,
    updated_at = clock_timestamp()
WHERE relay = $1 AND owner = $2 AND epoch = $3
RETURNING position

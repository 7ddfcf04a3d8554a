-- Ends the lease of one owner. Locks: the row of the relay. Leans on pk_relay_cursor.
UPDATE relay_cursor
SET owner = NULL, lease_until = clock_timestamp(), updated_at = clock_timestamp()
WHERE relay = $1 AND owner = $2

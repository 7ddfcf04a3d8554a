-- Makes $2 the owner of a checkpoint unless another's lease runs; the epoch rises with the owner.
-- Locks: the row of the relay. Leans on pk_relay_cursor.
INSERT INTO relay_cursor AS c (relay, epoch, owner, lease_until)
VALUES ($1, 1, $2, clock_timestamp() + $3::interval)
ON CONFLICT (relay) DO UPDATE
SET owner = $2,
    epoch = c.epoch + CASE WHEN c.owner IS DISTINCT FROM $2 THEN 1 ELSE 0 END,
    lease_until = clock_timestamp() + $3::interval,
    updated_at = clock_timestamp()
WHERE c.owner IS NULL OR c.owner = $2 OR c.lease_until < clock_timestamp()
RETURNING position, epoch

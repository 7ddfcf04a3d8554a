-- Extends a worker's lease unless others have retired it. Locks: its row. Leans on pk_worker.
UPDATE worker
SET lease_until = clock_timestamp() + $2::interval, presence_key = $3
WHERE id = $1 AND retired_at IS NULL
RETURNING clock_timestamp() AS now

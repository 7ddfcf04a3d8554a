-- Takes a worker out of the list at its own wish. Locks: its row. Leans on pk_worker.
UPDATE worker SET retired_at = clock_timestamp(), reason = 'left'
WHERE id = $1 AND retired_at IS NULL

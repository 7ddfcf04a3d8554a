-- Takes a worker out of the list, if it is still as it was seen.
-- Locks: its row, and waits for a claim of its own that is under way. Leans on pk_worker.
UPDATE worker
SET retired_at = clock_timestamp(), reason = $2
WHERE id = $1 AND retired_at IS NULL
    AND ($3::bigint IS NULL AND lease_until < clock_timestamp() OR presence_key = $3)
RETURNING id

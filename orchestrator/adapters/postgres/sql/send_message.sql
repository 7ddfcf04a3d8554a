-- Puts a message into the inbox of a live instance and makes it due; nothing when it is known.
-- Locks: the saga row, which the same transaction has locked before. Leans on pk_saga and
-- uq_inbox_saga_id_dedupe_key.
WITH known AS (
    SELECT seq FROM inbox WHERE saga_id = $1 AND dedupe_key = $5
), raised AS (
    UPDATE saga
    SET inbox_seq = inbox_seq + 1, due_at = least(due_at, clock_timestamp())
    WHERE id = $1 AND status NOT IN ('completed', 'compensated', 'terminated', 'stuck')
        AND NOT EXISTS (SELECT FROM known)
    RETURNING inbox_seq
), stored AS (
    INSERT INTO inbox (saga_id, seq, kind, payload, actor, dedupe_key)
    SELECT $1, inbox_seq, $2, $3::json, $4, $5 FROM raised
)
SELECT 'duplicate' AS status, seq FROM known
UNION ALL
SELECT 'accepted', inbox_seq FROM raised

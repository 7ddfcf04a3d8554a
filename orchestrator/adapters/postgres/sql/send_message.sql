-- Puts a message into the inbox, where the instance takes it ($6), and makes it due; one that is at
-- rest only where the message frees it ($7). Nothing when the message is known.
-- Locks: the saga row, which the same transaction has locked before. A statement of its own after
-- that: it sees what came in before the lock was had. Leans on pk_saga and
-- uq_inbox_saga_id_dedupe_key.
WITH known AS (
    SELECT seq FROM inbox WHERE saga_id = $1 AND dedupe_key = $5
), raised AS (
    UPDATE saga
    SET inbox_seq = inbox_seq + 1,
        status = CASE WHEN $7::bool THEN 'waiting' ELSE status END,
        due_at = CASE
            WHEN status = 'stuck' AND NOT $7::bool THEN NULL
            ELSE least(due_at, clock_timestamp())
        END,
        updated_at = CASE WHEN $7::bool THEN clock_timestamp() ELSE updated_at END
    WHERE id = $1 AND $6::bool AND NOT EXISTS (SELECT FROM known)
    RETURNING inbox_seq
), stored AS (
    INSERT INTO inbox (saga_id, seq, kind, payload, actor, dedupe_key)
    SELECT $1, inbox_seq, $2, $3::json, $4, $5 FROM raised
)
SELECT EXISTS (SELECT FROM known) AS known, (SELECT inbox_seq FROM raised) AS seq

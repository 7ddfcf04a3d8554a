-- Where an instance stands.
-- Locks: the saga row, so that messages of one instance come one after the other. Leans on pk_saga.
SELECT s.status, NULL::int AS seq FROM saga s WHERE s.id = $1 FOR NO KEY UPDATE

-- Where an instance stands.
-- Locks: the saga row, so that messages of one instance come one after the other, and none of them
-- beside an append. Leans on pk_saga.
SELECT s.status, s.pivoted, s.inbox_seq - s.inbox_seen AS unread
FROM saga s WHERE s.id = $1 FOR NO KEY UPDATE

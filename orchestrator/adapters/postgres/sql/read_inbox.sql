-- Messages to one instance after a sequence number, in order. Leans on pk_inbox.
SELECT seq, kind, payload, actor, sent_at
FROM inbox
WHERE saga_id = $1 AND seq > $2
ORDER BY seq

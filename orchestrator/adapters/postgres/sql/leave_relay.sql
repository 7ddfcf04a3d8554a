-- Forgets one relay process. Locks: its row. Leans on pk_relay_member.
DELETE FROM relay_member WHERE relay = $1 AND owner = $2

-- Writes what became of a command, in the transaction of its effect. Locks: its own row.
INSERT INTO participant_command (command_id, command, standing, number, answer)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (command_id) DO UPDATE
SET standing = excluded.standing, number = excluded.number, answer = excluded.answer,
    handled_at = clock_timestamp()

-- The book of a participant: what became of every command, in the database that its effects are in.
CREATE TABLE IF NOT EXISTS participant_command (
    command_id text PRIMARY KEY,
    command text NOT NULL,
    standing text NOT NULL
        CHECK (standing IN ('done', 'failed', 'in_doubt', 'refused', 'void')),
    number integer NOT NULL,
    answer text,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

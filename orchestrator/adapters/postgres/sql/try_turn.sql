-- As take_turn, but never waits: a probe hears that the command still runs.
SELECT pg_try_advisory_xact_lock(hashtextextended($1, 5417)) AS had

-- One at a time for each command, to the end of the transaction; duplicates wait for the first.
SELECT pg_advisory_xact_lock(hashtextextended($1, 5417))

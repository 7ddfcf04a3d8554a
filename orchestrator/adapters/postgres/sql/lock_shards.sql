-- Lets one relay at a time make the shards of relay $1. Locks: an advisory lock, to the end of the
-- transaction.
SELECT pg_advisory_xact_lock(hashtext('saga'), hashtext('shards ' || $1))

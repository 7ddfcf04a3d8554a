-- Ends a holder's turn to compute an output; what the entry held is stale by then.
-- Locks: the entry. Leans on pk_cache_entry.
DELETE FROM cache_entry WHERE digest = $1 AND holder = $2

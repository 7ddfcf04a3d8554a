-- Workers whose lease runs. No locks.
SELECT count(*) FROM worker WHERE retired_at IS NULL AND lease_until > clock_timestamp()

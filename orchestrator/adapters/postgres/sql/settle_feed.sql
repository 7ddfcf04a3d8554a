-- Waits until no append is under way, and notes the highest position then: all up to it is there.
-- Locks: the gate, exclusively, for an instant. Gives up after $1, so that a session that is stuck
-- with the gate delays the feed and not the sagas that queue behind us. Where the COMMIT comes after
-- it (behind a pooler), a process that is stopped before that keeps the gate for a second only.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', $1, true),
        set_config('idle_in_transaction_session_timeout', '1s', true)
), gate AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtext('saga'), hashtext('gate')) FROM patience
)
SELECT CASE WHEN p.is_called THEN p.last_value ELSE 0 END AS high
FROM gate, event_position p

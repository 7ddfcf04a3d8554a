-- No row when a call may go through a circuit now, else when to ask again; notes probes that go.
-- A closed circuit is only read. Arithmetic: policies.held_by_circuit.
-- Locks: the circuit, when it looks half open. Leans on pk_circuit.
WITH seen AS MATERIALIZED (
    SELECT c.opened_at + $3::interval AS half_open_at, clock_timestamp() AS now
    FROM circuit c WHERE c.namespace = $1 AND c.name = $2 AND c.opened_at IS NOT NULL
), locked AS MATERIALIZED (
    -- Found by its key alone: it may have changed while we waited for the lock.
    SELECT c.opened_at, c.probes FROM circuit c
    WHERE c.namespace = $1 AND c.name = $2 AND (SELECT s.half_open_at <= s.now FROM seen s)
    FOR NO KEY UPDATE
), timed AS MATERIALIZED (
    SELECT l.opened_at + $3::interval AS half_open_at, l.probes, clock_timestamp() AS now
    FROM locked l
), asked AS MATERIALIZED (
    SELECT t.half_open_at, t.now, ARRAY(
        SELECT p.at FROM unnest(t.probes) AS p (at) WHERE t.now < p.at + $3::interval ORDER BY p.at
    ) AS probes
    FROM timed t
), admitted AS (
    UPDATE circuit c SET probes = a.probes || a.now
    FROM asked a
    WHERE c.namespace = $1 AND c.name = $2
        AND a.half_open_at <= a.now AND cardinality(a.probes) < $4::int
)
SELECT s.half_open_at AS until FROM seen s WHERE s.now < s.half_open_at
UNION ALL
SELECT a.half_open_at FROM asked a WHERE a.now < a.half_open_at
UNION ALL
SELECT least(
    a.probes[1] + $3::interval,
    a.now + greatest(a.now - a.probes[1], $5::interval)
) FROM asked a WHERE a.half_open_at <= a.now AND cardinality(a.probes) >= $4::int

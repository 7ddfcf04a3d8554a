-- Counts a failed call; the circuit opens, or opens again. Arithmetic: policies.circuit_after.
-- Locks: the circuit, made here when it is new. Leans on pk_circuit.
INSERT INTO circuit AS c (namespace, name, failed, opened_at)
VALUES ($1, $2, 1, CASE WHEN $4::int <= 1 THEN clock_timestamp() END)
ON CONFLICT (namespace, name) DO UPDATE
SET failed = c.failed + 1,
    passed = 0,
    probes = '{}',
    opened_at = CASE
        WHEN c.opened_at IS NOT NULL OR c.failed + 1 >= $4::int THEN clock_timestamp()
    END
-- While it is open, a straggler that was let through before says nothing new.
WHERE c.opened_at IS NULL OR c.opened_at + $3::interval <= clock_timestamp()

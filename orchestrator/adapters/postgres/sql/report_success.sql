-- Counts a call that succeeded: failures in a row end, enough probes close the circuit.
-- Nothing is written while all is well. Arithmetic: policies.circuit_after.
-- Locks: the circuit. Leans on pk_circuit.
UPDATE circuit c
SET failed = CASE WHEN c.opened_at IS NULL OR c.passed + 1 >= $4::int THEN 0 ELSE c.failed END,
    passed = CASE WHEN c.opened_at IS NULL OR c.passed + 1 >= $4::int THEN 0 ELSE c.passed + 1 END,
    probes = CASE
        WHEN c.opened_at IS NULL OR c.passed + 1 >= $4::int THEN '{}' ELSE c.probes[2:]
    END,
    opened_at = CASE WHEN c.passed + 1 < $4::int THEN c.opened_at END
WHERE c.namespace = $1 AND c.name = $2
    AND ((c.opened_at IS NULL AND c.failed > 0) OR c.opened_at + $3::interval <= clock_timestamp())

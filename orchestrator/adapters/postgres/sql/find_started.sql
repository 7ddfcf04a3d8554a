-- Instances that already have these keys, or, where a request has no key, these ids. No locks.
-- A statement of its own after the insert: it sees what the insert ran into.
-- Leans on uq_saga_key, pk_saga and pk_saga_input.
SELECT i.n, s.id::text AS id, p.input
FROM unnest($2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY AS i (id, name, key, n)
CROSS JOIN LATERAL (
    SELECT id FROM saga
    WHERE i.key IS NOT NULL AND namespace = $1 AND name = i.name AND key = i.key
    UNION ALL
    SELECT id FROM saga WHERE i.key IS NULL AND id = i.id
) AS s
JOIN saga_input p ON p.saga_id = s.id

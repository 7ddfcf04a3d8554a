-- Instances that already have these ids or else these keys. No locks.
-- A statement of its own after the insert: it sees what the insert ran into. The input as text:
-- the connection may be a caller's, with codecs of its own.
-- Leans on pk_saga, uq_saga_key and pk_saga_input.
SELECT i.n, s.id::text AS id, p.input::text AS input
FROM unnest($2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY AS i (id, name, key, n)
CROSS JOIN LATERAL (
    SELECT id, 1 AS rank FROM saga WHERE id = i.id
    UNION ALL
    SELECT id, 2 FROM saga
    WHERE i.key IS NOT NULL AND namespace = $1 AND name = i.name AND key = i.key
    ORDER BY rank
    LIMIT 1
) AS s
JOIN saga_input p ON p.saga_id = s.id

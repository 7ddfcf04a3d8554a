-- Stores new instances with their inputs; those whose key or id is known are left out.
-- Locks: new keys in the order of the arrays (sorted by key), so that batches cannot deadlock.
-- Leans on uq_saga_key and pk_saga.
WITH input AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        unnest(
            $2::uuid[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::uuid[], $12::text[]
        ), generate_series(1, $13::int)
    ) AS i (
        id, name, version, fingerprint, key, input, context, correlation_id, tags, parent,
        parent_node, n
    )
), created AS (
    INSERT INTO saga (
        id, namespace, name, version, fingerprint, key, status, due_at, correlation_id, context,
        tags, parent, parent_node
    )
    SELECT id, $1, name, version, fingerprint, key, 'pending', clock_timestamp(), correlation_id,
        context::json, tags::jsonb, parent, parent_node
    FROM input ORDER BY n
    ON CONFLICT DO NOTHING
    RETURNING id
), stored AS (
    INSERT INTO saga_input (saga_id, input)
    SELECT c.id, i.input::json
    FROM created c JOIN input i ON i.id = c.id
)
SELECT id::text AS id FROM created

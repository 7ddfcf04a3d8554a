-- Writes each append whose owner, epoch and head still hold; the others of the batch are fenced.
-- Locks: saga rows in the order of the arrays (sorted by id), then the feed's gate, shared.
-- Leans on pk_saga. The UPDATE is the fence: a SELECT would let a zombie's events in.
WITH input AS MATERIALIZED (
    -- The series counts the rows, and makes the planner expect many: no join here may be quadratic.
    SELECT * FROM ROWS FROM (
        unnest(
            $1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::text[], $7::timestamptz[],
            $8::uuid[], $9::int[], $10::bool[], $11::bool[]
        ), generate_series(1, $12::int)
    ) AS i (
        id, owner, epoch, head, new_head, status, due_at, owner_after, inbox_seen, if_inbox,
        pivoted, n
    )
), owned AS (
    UPDATE saga s
    SET head = i.new_head,
        status = i.status,
        due_at = CASE
            WHEN i.status IN ('completed', 'compensated', 'terminated', 'stuck') THEN NULL
            ELSE i.due_at
        END,
        owner = i.owner_after,
        pivoted = s.pivoted OR i.pivoted,
        claims = 0,
        inbox_seen = least(greatest(s.inbox_seen, i.inbox_seen), s.inbox_seq),
        updated_at = clock_timestamp()
    FROM input i
    -- Only pk_saga can serve these conditions: an equal owner would bring in ix_saga_owner.
    WHERE s.id = ANY ($1::uuid[]) AND s.id = i.id AND s.owner IS NOT DISTINCT FROM i.owner
        AND s.epoch = i.epoch AND s.head = i.head
        AND s.status NOT IN ('completed', 'compensated', 'terminated')
        AND (NOT i.if_inbox OR s.inbox_seq <= i.inbox_seen)
    RETURNING s.id, s.inbox_seq, i.n
), gate AS MATERIALIZED (
    -- After the rows are ours and before a position is handed out.
    SELECT pg_advisory_xact_lock_shared(hashtext('saga'), hashtext('gate'))
    FROM (SELECT count(*) AS rows FROM owned) AS o WHERE o.rows > 0
), written AS (
    INSERT INTO event (
        saga_id, version, type, node, attempt, epoch, data, meta, recorded_at, hash
    )
    SELECT o.id, e.version, e.type, e.node, e.attempt, e.epoch, e.data::json, e.meta::json,
           e.recorded_at, e.hash
    FROM gate, ROWS FROM (
        unnest(
            $13::int[], $14::int[], $15::text[], $16::text[], $17::int[], $18::int[], $19::text[],
            $20::text[], $21::timestamptz[], $22::bytea[]
        ), generate_series(1, $23::int)
    ) AS e (
        append, version, type, node, attempt, epoch, data, meta, recorded_at, hash, n
    ) JOIN owned o ON o.n = e.append
    ORDER BY e.n
)
SELECT id::text AS id, inbox_seq FROM owned

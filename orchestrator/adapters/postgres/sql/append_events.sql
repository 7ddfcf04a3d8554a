-- Writes each append whose owner, epoch and head still hold; the others of the batch are fenced.
-- Locks: saga rows in the order of the arrays (sorted by id), then the feed's gate, shared.
-- Leans on pk_saga. The UPDATE is the fence: a SELECT would let a zombie's events in.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::text[], $7::timestamptz[],
        $8::uuid[], $9::int[], $10::bool[]
    ) WITH ORDINALITY AS i (
        id, owner, epoch, head, new_head, status, due_at, owner_after, inbox_seen, if_inbox, n
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
        claims = 0,
        inbox_seen = greatest(s.inbox_seen, i.inbox_seen),
        updated_at = clock_timestamp()
    FROM input i
    WHERE s.id = i.id AND s.owner = i.owner AND s.epoch = i.epoch AND s.head = i.head
        AND s.status NOT IN ('completed', 'compensated', 'terminated')
        AND (NOT i.if_inbox OR s.inbox_seq = i.inbox_seen)
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
    FROM gate, unnest(
        $11::int[], $12::int[], $13::text[], $14::text[], $15::int[], $16::int[], $17::text[],
        $18::text[], $19::timestamptz[], $20::bytea[]
    ) WITH ORDINALITY AS e (
        append, version, type, node, attempt, epoch, data, meta, recorded_at, hash, n
    ) JOIN owned o ON o.n = e.append
    ORDER BY e.n
)
SELECT id::text AS id, inbox_seq FROM owned

-- Makes the partition of one month and moves what the default partition holds of it.
-- Locks: event_default wholly, then event against other DDL only (ATTACH); appends go on elsewhere.
-- The rows that move keep position and hash; the setting lasts for this transaction only.
CREATE TABLE {name} (LIKE event INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
CREATE UNIQUE INDEX {name}_position ON {name} (position);
LOCK TABLE event_default IN ACCESS EXCLUSIVE MODE;
SET LOCAL saga.retention = 'on';
WITH moved AS (
    DELETE FROM event_default WHERE saga_id >= '{lower}' AND saga_id < '{upper}' RETURNING *
)
INSERT INTO {name} SELECT * FROM moved;
SET LOCAL saga.retention = 'off';
ALTER TABLE {name} ADD CONSTRAINT {name}_ids CHECK (saga_id >= '{lower}' AND saga_id < '{upper}');
ALTER TABLE event ATTACH PARTITION {name} FOR VALUES FROM ('{lower}') TO ('{upper}');
ALTER TABLE {name} DROP CONSTRAINT {name}_ids;
CREATE TRIGGER event_no_truncate BEFORE TRUNCATE ON {name}
    FOR EACH STATEMENT EXECUTE FUNCTION event_is_append_only();

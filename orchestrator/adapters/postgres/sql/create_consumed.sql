-- The tables of a consumer of saga events, in the database of its own handlers.
-- Not part of our schema: `create_tables` runs this there, once, and again without harm.
CREATE TABLE IF NOT EXISTS saga_consumed (
    consumer_group text NOT NULL,
    saga_id text NOT NULL,
    version bigint NOT NULL,
    parked boolean NOT NULL DEFAULT false,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer_group, saga_id)
) WITH (fillfactor = 70);
CREATE TABLE IF NOT EXISTS saga_parked (
    consumer_group text NOT NULL,
    saga_id text NOT NULL,
    version bigint NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    timestamp bigint NOT NULL,
    value bytea NOT NULL,
    headers json NOT NULL,
    reason text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer_group, saga_id, version)
);

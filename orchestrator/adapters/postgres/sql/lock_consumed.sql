-- Keeps everybody else away from a saga's events. Locks: its row. Leans on saga_consumed_pkey.
SELECT version, parked FROM saga_consumed WHERE consumer_group = $1 AND saga_id = $2 FOR UPDATE

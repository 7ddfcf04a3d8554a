-- What a worker holds. Leans on ix_saga_owner.
SELECT id::text AS id, epoch, inbox_seq FROM saga WHERE owner = $1

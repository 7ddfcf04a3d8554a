-- Those of some instances that have ended or are stuck. Leans on pk_saga.
SELECT id::text AS id, status FROM saga
WHERE id = ANY ($1::uuid[]) AND status IN ('completed', 'compensated', 'terminated', 'stuck')

-- Instances that nobody took within a minute of being due, by definition. No locks; ix_saga_due.
SELECT name, version, count(*)
FROM saga
WHERE owner IS NULL AND due_at IS NOT NULL AND due_at < clock_timestamp() - interval '1 min'
GROUP BY name, version ORDER BY name, version

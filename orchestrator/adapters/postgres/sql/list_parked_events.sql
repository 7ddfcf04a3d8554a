-- What a group has set aside, saga by saga in order. No locks.
SELECT saga_id, version, reason, parked_at, topic, partition, "offset"
FROM saga_parked WHERE consumer_group = $1 ORDER BY saga_id, version

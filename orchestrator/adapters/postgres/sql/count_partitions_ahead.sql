-- How many partitions of the log begin after this month. Names end in the month: event_2026_11.
SELECT count(*)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'event'::regclass
    AND c.relname ~ '^event_\d{4}_\d{2}$'
    AND c.relname > 'event_' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY_MM')

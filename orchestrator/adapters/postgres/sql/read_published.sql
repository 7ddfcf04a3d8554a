-- Up to where every relay has published, and whether there ever was one; without one, nothing is owed.
SELECT coalesce(min(position), 9223372036854775807) AS position, count(*) > 0 AS relayed
FROM relay_cursor

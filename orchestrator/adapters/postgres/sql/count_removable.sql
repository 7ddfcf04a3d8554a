-- How many instances ended before $1, of one saga where $2 names it, and how many of them have to stay:
-- not published up to $3 yet, or with a parent that has to stay itself. For people; reads all of them.
SELECT count(*) AS ended,
    count(*) FILTER (WHERE e.position > $3) AS unpublished,
    coalesce(sum(s.head), 0) AS events,
    count(*) FILTER (
        WHERE p.id IS NOT NULL AND (
            p.status NOT IN ('completed', 'compensated', 'terminated') OR p.updated_at >= $1
        )
    ) AS held
FROM saga s
LEFT JOIN saga p ON p.id = s.parent
LEFT JOIN event e ON e.saga_id = s.id AND e.version = s.head
WHERE s.status IN ('completed', 'compensated', 'terminated') AND s.updated_at < $1
    AND ($2::text IS NULL OR s.name = $2)

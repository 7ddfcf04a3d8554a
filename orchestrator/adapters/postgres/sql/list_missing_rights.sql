-- What this role may not do with our tables, and would have to. No locks.
WITH needed (relation, rights) AS (
    VALUES ('saga', ARRAY['SELECT', 'INSERT', 'UPDATE']),
        ('saga_input', ARRAY['SELECT', 'INSERT']),
        ('event', ARRAY['SELECT', 'INSERT']),
        ('inbox', ARRAY['SELECT', 'INSERT']),
        ('worker', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('relay_cursor', ARRAY['SELECT', 'INSERT', 'UPDATE']),
        ('circuit', ARRAY['SELECT', 'INSERT', 'UPDATE']),
        ('rate', ARRAY['SELECT', 'INSERT', 'UPDATE']),
        ('cache_entry', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
        ('budget', ARRAY['SELECT', 'INSERT', 'UPDATE']),
        ('budget_receipt', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'])
), missing AS (
    SELECT n.relation AS object, string_agg(r, ', ') AS rights
    FROM needed n CROSS JOIN LATERAL unnest(n.rights) AS r
    WHERE NOT has_table_privilege(n.relation, r)
    GROUP BY 1
    UNION ALL
    SELECT 'event_position', string_agg(r, ', ')
    FROM unnest(ARRAY['USAGE', 'SELECT']) AS r
    WHERE NOT has_sequence_privilege('event_position', r)
)
SELECT object, rights FROM missing WHERE rights IS NOT NULL ORDER BY object

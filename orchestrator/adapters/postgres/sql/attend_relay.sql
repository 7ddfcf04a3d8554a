-- Says that relay process $2 is there for $3 more, forgets those long gone, and lists who is there.
-- Locks: own row, and those that are forgotten. Leans on pk_relay_member.
WITH me AS (
    INSERT INTO relay_member AS m (relay, owner, lease_until)
    VALUES ($1, $2, clock_timestamp() + $3::interval)
    ON CONFLICT (relay, owner) DO UPDATE SET lease_until = clock_timestamp() + $3::interval
    RETURNING owner
), gone AS (
    DELETE FROM relay_member
    WHERE relay = $1 AND owner <> $2 AND lease_until < clock_timestamp() - interval '1 hour'
)
SELECT owner FROM me
UNION
SELECT owner FROM relay_member WHERE relay = $1 AND owner <> $2 AND lease_until > clock_timestamp()
ORDER BY owner

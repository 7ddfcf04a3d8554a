-- Adds to what was spent of a budget, unless the receipt is known; forgets receipts that are old.
-- Arithmetic: policies.spent_after. Locks: the receipt, then the budget, made here when it is new;
-- old receipts only where nobody else has them. Leans on pk_budget and ix_budget_receipt_spent_at.
WITH old AS MATERIALIZED (
    SELECT receipt, spent_at FROM budget_receipt
    WHERE namespace = $1 AND name = $2 AND spent_at < clock_timestamp() - $6::interval
    LIMIT 100
    FOR UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM budget_receipt r USING old o
    WHERE r.namespace = $1 AND r.name = $2 AND r.spent_at = o.spent_at AND r.receipt = o.receipt
        AND r.receipt <> $4
), noted AS (
    INSERT INTO budget_receipt (namespace, name, receipt) VALUES ($1, $2, $4)
    ON CONFLICT DO NOTHING
    RETURNING receipt
)
INSERT INTO budget AS b (namespace, name, since, spent)
SELECT $1, $2, coalesce(date_bin($3::interval, clock_timestamp(), 'epoch'), 'epoch'), $5::float8
FROM noted
ON CONFLICT (namespace, name) DO UPDATE
SET spent = CASE WHEN b.since >= excluded.since THEN b.spent ELSE 0 END + excluded.spent,
    since = greatest(b.since, excluded.since)

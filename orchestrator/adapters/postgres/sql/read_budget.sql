-- What was spent in the present period of a budget; no row when nothing was.
-- Arithmetic: policies.period_start. Leans on pk_budget.
SELECT spent FROM budget
WHERE namespace = $1 AND name = $2
    AND since >= coalesce(date_bin($3::interval, clock_timestamp(), 'epoch'), 'epoch')

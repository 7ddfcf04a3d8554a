-- The mark of this transaction; and, until it ends, the planner as the pool's connections have it,
-- so that the append keeps its plan on a connection that runs other people's statements. No locks.
SELECT current_setting('saga.transaction', true) AS mark,
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('jit', 'off', true)

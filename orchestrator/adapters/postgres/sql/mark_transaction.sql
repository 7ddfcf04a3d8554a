-- Marks a transaction: the mark is gone when it has ended, however it ended. No locks.
SELECT set_config('saga.transaction', $1, true)

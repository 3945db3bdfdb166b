-- The sessions of an import.

-- lower_deadlock_timeout --
-- Of two sessions that wait for each other, the one that looks first is ended: the import, which repeats its batch. Only
-- where the role may change it.
SELECT set_config('deadlock_timeout', '50ms', false) WHERE has_parameter_privilege('deadlock_timeout', 'SET');

-- cancel_long --
-- Cancels what these sessions have been at for so many seconds. Not what they have just begun: the state of a job, say.
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
 WHERE pid = ANY(%(processes)s) AND state = 'active' AND clock_timestamp() - query_start > %(seconds)s * interval '1 second';

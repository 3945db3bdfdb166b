-- The sessions of an import.

-- lower_deadlock_timeout --
-- Of two sessions that wait for each other, the one that looks first is ended: the import, which repeats its batch. Only
-- where the role may change it.
SELECT set_config('deadlock_timeout', '50ms', false) WHERE has_parameter_privilege('deadlock_timeout', 'SET');

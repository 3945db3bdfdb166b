-- A session of the API.

-- configure_session --
-- A session of the API. A plan made while the table was empty is kept when it is not any more: without sequential scans it
-- is the right one from the start. Locks and statements end before a client gives up.
SELECT set_config('enable_seqscan', 'off', false), set_config('lock_timeout', '5s', false),
       set_config('statement_timeout', '15s', false), set_config('TimeZone', 'UTC', false);

-- A session of the API.

-- configure_session --
-- Prepared plans are kept: one that was made while the table was empty is still used when it is large. Without sequential
-- scans it is right for both. The time limits are shorter than those of most clients.
SELECT set_config('enable_seqscan', 'off', false), set_config('lock_timeout', '5s', false),
       set_config('statement_timeout', '15s', false), set_config('TimeZone', 'UTC', false);

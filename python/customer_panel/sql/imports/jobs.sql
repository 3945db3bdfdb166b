-- Looking at jobs: what an import set aside, and whether one is alive.

-- rejects --
-- Rejects and warnings in file order; limit NULL: all of them.
SELECT line, byte_from, byte_to, severity, code, field, message, raw
  FROM import_rejects WHERE import_id = %(import_id)s ORDER BY byte_from LIMIT %(limit)s;

-- is_runner_alive --
-- Whether some session holds the one-runner lock of this database: a job that is RUNNING without it was killed.
SELECT EXISTS (SELECT FROM pg_locks
                WHERE locktype = 'advisory' AND granted AND objsubid = 1
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND classid::bigint << 32 | objid::bigint = %(key)s::bigint);

-- The server's worker: what it takes up by itself, and what is asked of imports that nobody runs.

-- waiting_imports --
-- Imports that wait for a runner while nobody runs any, oldest first: interrupted or left by a runner that died, and
-- paused ones that are to be given up. One behind which a newer one of its feed has begun would bring older values.
SELECT i.id, i.status, i.file_path, r.requested,
       NOT EXISTS (SELECT FROM imports AS n WHERE n.source_id = i.source_id AND n.id > i.id) AS is_newest
  FROM imports AS i LEFT JOIN import_requests AS r ON r.import_id = i.id
 WHERE (i.status IN ('RUNNING', 'INTERRUPTED') OR i.status = 'PAUSED' AND r.requested = 'CANCELLED')
   AND NOT (<is_runner_alive>)
 ORDER BY i.id;

-- set_progress_every --
-- How often streams are told of this import.
UPDATE imports SET progress_every_ms = %(progress_every_ms)s WHERE id = %(import_id)s;

-- is_import_running --
-- Whether an import is RUNNING and its runner there.
SELECT EXISTS (SELECT FROM imports WHERE status = 'RUNNING') AND (<is_runner_alive>);

-- ask_waiting_import --
-- Asks whoever has a worker to give up an import that nobody runs. No row back: it does not wait.
INSERT INTO import_requests (import_id, requested)
SELECT id, 'CANCELLED' FROM imports WHERE id = %(import_id)s AND status IN ('PAUSED', 'INTERRUPTED')
ON CONFLICT (import_id) DO UPDATE SET requested = excluded.requested
RETURNING pg_notify('customer_panel_requests', import_id::text);

-- cancel_waiting_import --
-- Gives up an import that nobody runs while another one runs, which builds what keys are missing. No row back: it does not wait.
WITH cancelled AS (
    UPDATE imports
       SET status = 'CANCELLED', epoch = epoch + 1, updated_at = clock_timestamp(), completed_at = clock_timestamp(),
           end_number = <next_end>
     WHERE id = %(import_id)s AND status IN ('PAUSED', 'INTERRUPTED')
    RETURNING id, status
), heard AS (
    DELETE FROM import_requests USING cancelled WHERE import_id = id
), dropped AS (
    DELETE FROM import_parked USING cancelled WHERE import_id = id
)
SELECT pg_notify('customer_panel', json_build_object('jobId', id::text, 'status', status)::text) FROM cancelled;

-- list_jobs --
-- Imports, newest first, or one of them, with the sums of their lanes and what was asked of them. Of a file of which
-- nothing but the header was passed no byte is read.
SELECT <standing>, r.requested, '[]'::json AS recent
  FROM (SELECT * FROM imports WHERE %(import_id)s::bigint IS NULL OR id = %(import_id)s
         ORDER BY id DESC LIMIT %(limit)s OFFSET %(offset)s) AS i
  JOIN sources AS s ON s.id = i.source_id
  LEFT JOIN import_requests AS r ON r.import_id = i.id
 CROSS JOIN LATERAL (<lane_sums>) AS l
 ORDER BY i.id DESC;

-- count_jobs --
-- How many imports there are.
SELECT count(*) FROM imports;

-- page_rejects --
-- Rejects and warnings of an import in file order, behind the byte %(after)s, after so many that are left out.
SELECT line, byte_from, byte_to, severity, code, field, message, raw
  FROM import_rejects WHERE import_id = %(import_id)s AND byte_from > %(after)s ORDER BY byte_from
 LIMIT %(limit)s OFFSET %(offset)s;

-- count_rejects --
-- How many rejects and warnings an import has.
SELECT count(*) FROM import_rejects WHERE import_id = %(import_id)s;

-- The imports that the server's worker continues by itself.

-- waiting_imports --
-- Imports that wait for a runner, oldest first: interrupted ones, those whose runner died, and paused ones to be cancelled.
-- None while a runner is alive. One that is not the newest of its feed would write older values.
SELECT i.id, i.status, i.file_path, r.requested,
       NOT EXISTS (SELECT FROM imports AS n WHERE n.source_id = i.source_id AND n.id > i.id) AS is_newest
  FROM imports AS i LEFT JOIN import_requests AS r ON r.import_id = i.id
 WHERE (i.status IN ('RUNNING', 'INTERRUPTED') OR i.status = 'PAUSED' AND r.requested = 'CANCELLED')
   AND NOT (<is_runner_alive>)
 ORDER BY i.id;

-- set_progress_every --
-- How often streams get the progress of this import.
UPDATE imports SET progress_every_ms = %(progress_every_ms)s WHERE id = %(import_id)s;

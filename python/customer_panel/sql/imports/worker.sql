-- The imports that the server's worker continues by itself.

-- waiting_imports --
-- Imports that wait for a runner, oldest first: interrupted ones, those whose runner died, and paused ones to be cancelled.
-- None while a runner is alive.
SELECT i.id, i.status, i.file_path, r.requested, <newer_id>
  FROM imports AS i LEFT JOIN import_requests AS r ON r.import_id = i.id
 WHERE (i.status IN ('RUNNING', 'INTERRUPTED') OR i.status = 'PAUSED' AND r.requested = 'CANCELLED')
   AND NOT (<is_runner_alive>)
 ORDER BY i.id;

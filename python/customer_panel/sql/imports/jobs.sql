-- The list of imports, and requests to pause or cancel them.

-- list_jobs --
-- Imports, newest first, or one of them, with the sums of their lanes and their open requests.
SELECT <import_figures>, r.requested, '[]'::json AS recent,
       CASE WHEN i.status = 'RUNNING' THEN (<is_runner_alive>) ELSE false END AS is_alive
  FROM (SELECT * FROM imports WHERE %(import_id)s::bigint IS NULL OR id = %(import_id)s
         ORDER BY id DESC LIMIT %(limit)s OFFSET %(offset)s) AS i
  JOIN sources AS s ON s.id = i.source_id
  LEFT JOIN import_requests AS r ON r.import_id = i.id
 CROSS JOIN LATERAL (<lane_sums>) AS l
 ORDER BY i.id DESC;

-- count_jobs --
-- How many imports there are.
SELECT count(*) FROM imports;

-- is_import_running --
-- Whether an import is RUNNING and its runner is alive.
SELECT EXISTS (SELECT FROM imports WHERE status = 'RUNNING') AND (<is_runner_alive>);

-- ask_import --
-- Asks the runner of an import to pause or cancel it at the next batch border. No row back: it is not RUNNING.
INSERT INTO import_requests (import_id, requested)
SELECT id, %(requested)s FROM imports WHERE id = %(import_id)s AND status = 'RUNNING'
ON CONFLICT (import_id) DO UPDATE SET requested = excluded.requested
RETURNING pg_notify('customer_panel_requests', import_id::text);

-- ask_waiting_import --
-- Asks any worker to cancel an import that has no runner. No row back: the import does not wait.
INSERT INTO import_requests (import_id, requested)
SELECT id, 'CANCELLED' FROM imports WHERE id = %(import_id)s AND <is_waiting>
ON CONFLICT (import_id) DO UPDATE SET requested = excluded.requested
RETURNING pg_notify('customer_panel_requests', import_id::text);

-- cancel_waiting_import --
-- Cancels an import that has no runner, while another import runs: that one builds missing indexes. No row back: the import
-- does not wait.
WITH ended AS (
    UPDATE imports SET <ending>, epoch = epoch + 1 WHERE id = %(import_id)s AND <is_waiting> RETURNING id, status
), <closed>
SELECT <told> FROM ended;

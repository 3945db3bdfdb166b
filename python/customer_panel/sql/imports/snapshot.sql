-- What streams and GET /customers/progress show of imports: one statement, so all is of one moment.

-- snapshot --
-- The running import, else the one that changed last; and the imports whose end number is above %(since)s, the newest
-- %(most)s of them. Each with the sums of its lanes and the customers that it wrote last.
WITH chosen AS (
    SELECT id FROM imports ORDER BY status = 'RUNNING' DESC, updated_at DESC, id DESC LIMIT 1
), wanted AS (
    SELECT id FROM chosen
     UNION (SELECT id FROM imports WHERE end_number > %(since)s ORDER BY end_number DESC LIMIT %(most)s)
)
SELECT <import_figures>, i.id = (SELECT id FROM chosen) AS is_chosen, (SELECT max(end_number) FROM imports) AS highest_end,
       CASE WHEN i.status = 'RUNNING' THEN (<is_runner_alive>) ELSE false END AS is_alive,
       coalesce(r.recent, '[]') AS recent
  FROM wanted
  JOIN imports AS i USING (id)
  JOIN sources AS s ON s.id = i.source_id
 CROSS JOIN LATERAL (<lane_sums>) AS l
  LEFT JOIN LATERAL (
    SELECT json_agg(json_build_array(<shown>)) AS recent
      FROM (SELECT * FROM customers
             WHERE id = ANY(ARRAY(SELECT unnest(recent_ids) FROM import_lanes WHERE import_id = i.id))
               AND deleted_at IS NULL
             ORDER BY date_trunc('milliseconds', updated_at) DESC, id DESC LIMIT %(recent)s) AS c) AS r ON true
 ORDER BY i.end_number NULLS LAST;

-- import_figures --
-- Fragment: the columns of an import, with its source and the sums of its lanes. bytes_read is 0 until a lane is past the
-- header.
i.id, i.status, i.phase, s.name AS source, i.file_path, i.file_size, i.data_start,
       coalesce(i.scanned_to, CASE WHEN l.done_to > i.data_start THEN l.done_to ELSE 0 END) AS bytes_read,
       i.error, i.started_at, i.completed_at, greatest(i.updated_at, l.committed_at) AS updated_at,
       i.progress_every_ms, i.end_number, i.maintenance_ms,
       coalesce((SELECT elapsed_ms FROM import_clocks WHERE import_id = i.id), 0) AS elapsed_ms,
       l.processed, l.inserted, l.updated, l.unchanged, l.protected, l.duplicate, l.skipped, l.pending, l.warnings,
       (SELECT last_row_hash FROM import_lanes WHERE import_id = i.id ORDER BY last_line DESC, lane LIMIT 1)

-- lane_sums --
-- Fragment: the mean position of the lanes of an import, their last commit, and the sums of their counts.
SELECT avg(done_to)::bigint AS done_to, max(committed_at) AS committed_at,
       coalesce(sum(rows_processed), 0)::bigint AS processed, coalesce(sum(rows_inserted), 0)::bigint AS inserted,
       coalesce(sum(rows_updated), 0)::bigint AS updated, coalesce(sum(rows_unchanged), 0)::bigint AS unchanged,
       coalesce(sum(rows_protected), 0)::bigint AS protected, coalesce(sum(rows_duplicate), 0)::bigint AS duplicate,
       coalesce(sum(rows_skipped), 0)::bigint AS skipped, coalesce(sum(rows_pending), 0)::bigint AS pending,
       coalesce(sum(warnings), 0)::bigint AS warnings
  FROM import_lanes WHERE import_id = i.id

-- is_runner_alive --
-- Whether a session holds the one-runner lock of this database. If none does, the runner of a RUNNING job was killed.
SELECT EXISTS (SELECT FROM pg_locks
                WHERE locktype = 'advisory' AND granted AND objsubid = 1
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND classid::bigint << 32 | objid::bigint = %(key)s::bigint);

-- The job: created, claimed, divided into lanes, ended. Every change of a claimed job is fenced by its epoch.

-- try_lock --
-- Takes the lock of the one runner of a database. It ends with the session.
SELECT pg_try_advisory_lock(%(key)s);

-- source_id --
-- The id of a feed, made at its first import.
WITH made AS (INSERT INTO sources (name) VALUES (%(name)s) ON CONFLICT (name) DO NOTHING RETURNING id)
SELECT id FROM made UNION ALL SELECT id FROM sources WHERE name = %(name)s;

-- open_imports --
-- Imports that have not ended, newest first.
SELECT i.*, s.name AS source FROM imports AS i JOIN sources AS s ON s.id = i.source_id
 WHERE <is_open> ORDER BY i.id DESC;

-- get_import --
-- One import.
SELECT i.*, s.name AS source FROM imports AS i JOIN sources AS s ON s.id = i.source_id WHERE i.id = %(import_id)s;

-- create_import --
-- A new job, not yet claimed.
INSERT INTO imports (source_id, status, phase, file_path, file_size, file_device, file_inode, file_mtime_ns, delimiter,
                     headers, mapping, data_start, header_lines, rules_version, options, keys_deferred)
VALUES (%(source_id)s, 'RUNNING', 'scanning', %(file_path)s, %(file_size)s, %(file_device)s, %(file_inode)s,
        %(file_mtime_ns)s, %(delimiter)s, %(headers)s, %(mapping)s, %(data_start)s, %(header_lines)s, %(rules_version)s,
        %(options)s, %(keys_deferred)s)
RETURNING id;

-- create_lanes --
-- The lanes of a new job: they begin after the header, at the first record.
INSERT INTO import_lanes (import_id, lane, epoch, done_to, tail_hash)
SELECT %(import_id)s, lane, 0, %(done_to)s, %(tail_hash)s FROM generate_series(0, %(count)s - 1) AS lane;

-- claim_import --
-- Claims the job: an earlier runner finds no row of its epoch any more. A run that lost its connection keeps its clock;
-- a new run starts another. A pause that was requested from a runner that died is forgotten if a user starts the import again.
WITH forgotten AS (
    DELETE FROM import_requests WHERE import_id = %(import_id)s AND requested = 'PAUSED' AND %(forgets_pause)s
)
UPDATE imports
   SET epoch = epoch + 1, status = 'RUNNING', error = NULL, updated_at = clock_timestamp(),
       claimed_at = CASE WHEN %(is_first)s THEN clock_timestamp() ELSE claimed_at END,
       elapsed_ms = elapsed_ms + CASE WHEN %(is_first)s THEN <ran_ms> ELSE 0 END
 WHERE id = %(import_id)s AND <is_open>
RETURNING epoch, pg_notify('customer_panel', json_build_object('jobId', id::text, 'status', status)::text);

-- is_overtaken --
-- Whether another import has run since this one began, and rows wait that are not parked: how they were judged is not known
-- any more.
SELECT EXISTS (SELECT FROM imports AS o JOIN imports AS i ON o.id <> i.id AND o.epoch > 0 AND o.claimed_at > i.started_at
                WHERE i.id = %(import_id)s)
   AND (SELECT coalesce(sum(rows_pending), 0) FROM import_lanes WHERE import_id = %(import_id)s)
     > (SELECT count(*) FROM import_parked WHERE import_id = %(import_id)s AND is_first);

-- claim_lanes --
-- Raises the epoch of every lane. Waits for a backend that still commits for a dead runner.
UPDATE import_lanes SET epoch = %(epoch)s WHERE import_id = %(import_id)s AND epoch < %(epoch)s;

-- hold_claim --
-- Fences a step of the finish: no other runner can claim the job before this transaction ends.
SELECT id FROM imports WHERE id = %(import_id)s AND epoch = %(epoch)s AND status = 'RUNNING' FOR SHARE;

-- lanes --
-- The lanes of a job, in order.
SELECT lane, done_to, tail_hash, rows_processed, rows_inserted, rows_updated, rows_unchanged, rows_protected,
       rows_duplicate, rows_skipped, rows_pending, warnings, last_row_hash, last_line, recent_ids
  FROM import_lanes WHERE import_id = %(import_id)s ORDER BY lane;

-- replace_lanes --
-- Divides the lanes anew, first half: deletes the old ones and returns them.
DELETE FROM import_lanes WHERE import_id = %(import_id)s AND epoch = %(epoch)s
RETURNING lane, done_to, tail_hash, rows_processed, rows_inserted, rows_updated, rows_unchanged, rows_protected,
          rows_duplicate, rows_skipped, rows_pending, warnings, last_row_hash, last_line, recent_ids;

-- put_lane --
-- Divides the lanes anew, second half: inserts one lane.
INSERT INTO import_lanes (import_id, lane, epoch, done_to, tail_hash, rows_processed, rows_inserted, rows_updated,
    rows_unchanged, rows_protected, rows_duplicate, rows_skipped, rows_pending, warnings, last_row_hash, last_line, recent_ids,
    committed_at)
VALUES (%(import_id)s, %(lane)s, %(epoch)s, %(done_to)s, %(tail_hash)s, %(rows_processed)s, %(rows_inserted)s, %(rows_updated)s,
    %(rows_unchanged)s, %(rows_protected)s, %(rows_duplicate)s, %(rows_skipped)s, %(rows_pending)s, %(warnings)s,
    %(last_row_hash)s, %(last_line)s, %(recent_ids)s, clock_timestamp());

-- blocks --
-- The hashes of the blocks that any lane has passed.
SELECT DISTINCT block, hash FROM import_blocks WHERE import_id = %(import_id)s;

-- set_phase --
-- Stores the phase of the job. No row back means the claim is lost.
UPDATE imports SET phase = %(phase)s, updated_at = clock_timestamp(), scanned_to = coalesce(%(scanned_to)s, scanned_to)
 WHERE id = %(import_id)s AND epoch = %(epoch)s AND status = 'RUNNING'
RETURNING pg_notify('customer_panel', json_build_object('jobId', id::text, 'phase', phase)::text);

-- end_import --
-- Ends a run and adds the time it took. No row back means the claim is lost.
WITH done_requests AS (DELETE FROM import_requests WHERE import_id = %(import_id)s AND %(status)s <> 'INTERRUPTED')
UPDATE imports
   SET status = %(status)s, error = %(error)s, updated_at = clock_timestamp(),
       end_number = CASE WHEN <is_end> THEN <next_end> END,
       phase = CASE WHEN %(status)s = 'COMPLETED' THEN 'done' ELSE phase END,
       completed_at = CASE WHEN <is_end> THEN clock_timestamp() END,
       elapsed_ms = elapsed_ms + %(elapsed_ms)s, maintenance_ms = maintenance_ms + %(maintenance_ms)s,
       last_row_hash = (SELECT last_row_hash FROM import_lanes WHERE import_id = %(import_id)s ORDER BY last_line DESC LIMIT 1)
 WHERE id = %(import_id)s AND epoch = %(epoch)s AND status = 'RUNNING'
RETURNING pg_notify('customer_panel', json_build_object('jobId', id::text, 'status', status)::text);

-- abandon_import --
-- Ends a job whose runner is dead: it is interrupted, failed or cancelled.
WITH done_requests AS (DELETE FROM import_requests WHERE import_id = %(import_id)s AND <is_end>)
UPDATE imports
   SET status = %(status)s, epoch = epoch + 1, updated_at = clock_timestamp(),
       elapsed_ms = elapsed_ms + <ran_ms>,
       end_number = CASE WHEN <is_end> THEN <next_end> END,
       completed_at = CASE WHEN <is_end> THEN clock_timestamp() END
 WHERE id = %(import_id)s AND <is_open> AND status <> %(status)s
RETURNING pg_notify('customer_panel', json_build_object('jobId', id::text, 'status', status)::text);

-- drop_parked --
-- Deletes the parked rows of an import that will not reach the end of its file.
DELETE FROM import_parked WHERE import_id = %(import_id)s;

-- ran_ms --
-- Fragment: the milliseconds that a killed runner had run, until its last commit; it could not write them itself.
CASE WHEN status = 'RUNNING' AND epoch > 0 THEN greatest(0, coalesce((
    SELECT extract(epoch FROM max(committed_at) - claimed_at) * 1000 FROM import_lanes WHERE import_id = id), 0))::bigint ELSE 0 END

-- next_end --
-- Fragment: the number of an end. Ends become visible in the order of their numbers: a reader of one sees all lower ones too.
(SELECT nextval('import_ends') FROM pg_advisory_xact_lock(hashtextextended('customer_panel.import_ends', 0)))

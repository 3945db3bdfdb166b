-- The job: created, claimed, divided into lanes, ended. Every change of a claimed job is fenced by its epoch.

-- try_lock --
-- Takes the lock of the one runner of a database. It ends with the session.
SELECT pg_try_advisory_lock(%(key)s);

-- source_id --
-- The id of a feed, made at its first import.
WITH made AS (INSERT INTO sources (name) VALUES (%(name)s) ON CONFLICT (name) DO NOTHING RETURNING id)
SELECT id FROM made UNION ALL SELECT id FROM sources WHERE name = %(name)s;

-- job --
-- Fragment: the columns of a job. newer_id: an import of the same feed that began later and has completed, or has taken rows.
-- What this one still brings would be put over what that one brought.
i.*, s.name AS source, coalesce((SELECT elapsed_ms FROM import_clocks WHERE import_id = i.id), 0) AS elapsed_ms,
       (SELECT max(done_to) FROM import_lanes WHERE import_id = i.id) AS done_to, <newer_id>

-- newer_id --
-- Fragment: the newest such import.
(SELECT max(n.id) FROM imports AS n
                  WHERE n.source_id = i.source_id AND n.id > i.id
                    AND (n.status = 'COMPLETED'
                         OR EXISTS (SELECT FROM import_lanes WHERE import_id = n.id AND rows_processed > 0))) AS newer_id

-- open_imports --
-- Imports that have not ended, oldest first.
SELECT <job> FROM imports AS i JOIN sources AS s ON s.id = i.source_id WHERE <is_open> ORDER BY i.id;

-- get_import --
-- One import.
SELECT <job> FROM imports AS i JOIN sources AS s ON s.id = i.source_id WHERE i.id = %(import_id)s;

-- create_import --
-- A new job, not yet claimed, and its clock.
WITH made AS (
    INSERT INTO imports (source_id, status, phase, file_path, file_size, file_device, file_inode, file_mtime_ns, delimiter,
                         headers, mapping, data_start, header_lines, rules_version, options, keys_deferred)
    VALUES (%(source_id)s, 'RUNNING', 'scanning', %(file_path)s, %(file_size)s, %(file_device)s, %(file_inode)s,
            %(file_mtime_ns)s, %(delimiter)s, %(headers)s, %(mapping)s, %(data_start)s, %(header_lines)s, %(rules_version)s,
            %(options)s, %(keys_deferred)s)
    RETURNING id
)
INSERT INTO import_clocks (import_id) SELECT id FROM made RETURNING import_id;

-- create_lanes --
-- The lanes of a new job: they begin after the header, at the first record.
INSERT INTO import_lanes (import_id, lane, epoch, done_to, tail_hash)
SELECT %(import_id)s, lane, 0, %(done_to)s, %(tail_hash)s FROM generate_series(0, %(count)s - 1) AS lane;

-- claim_import --
-- Claims the job: an earlier runner finds no row of its epoch any more. A pause that was requested from a runner that died is
-- forgotten if a user starts the import again.
WITH forgotten AS (
    DELETE FROM import_requests WHERE import_id = %(import_id)s AND requested = 'PAUSED' AND %(forgets_pause)s
)
UPDATE imports
   SET epoch = epoch + 1, status = 'RUNNING', error = NULL, updated_at = clock_timestamp(),
       claimed_at = clock_timestamp()
 WHERE id = %(import_id)s AND <is_open>
RETURNING epoch, pg_notify('customer_panel', json_build_object('jobId', id::text, 'status', status)::text);

-- parks_done --
-- Whether another import has run since this one began, and rows wait that are not parked: how they were judged is not known
-- any more.
SELECT EXISTS (SELECT FROM imports AS o JOIN imports AS i ON o.id <> i.id AND o.epoch > 0 AND o.claimed_at > i.started_at
                WHERE i.id = %(import_id)s)
   AND (SELECT coalesce(sum(rows_pending), 0) FROM import_lanes WHERE import_id = %(import_id)s)
     > (SELECT count(*) FROM import_parked WHERE import_id = %(import_id)s AND is_first);

-- renew_epoch --
-- Takes an import that does not run, to repair what it left: whoever claims or repairs it later fences the caller out.
UPDATE imports SET epoch = epoch + 1 WHERE id = %(import_id)s AND status <> 'RUNNING' RETURNING epoch, source_id;

-- claim_lanes --
-- Raises the epoch of every lane. Waits for a backend that still commits for a dead runner.
UPDATE import_lanes SET epoch = %(epoch)s WHERE import_id = %(import_id)s AND epoch < %(epoch)s;

-- rename_import --
-- The file of the job has another name by now.
UPDATE imports SET file_path = %(file_path)s WHERE id = %(import_id)s AND epoch = %(epoch)s RETURNING id;

-- hold_claim --
-- Fences a step of the finish: nobody else can claim or repair the job before this transaction ends.
SELECT id FROM imports WHERE id = %(import_id)s AND epoch = %(epoch)s FOR SHARE;

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
-- Ends a run. No row back means the claim is lost.
WITH ended AS (
    UPDATE imports SET <ending>, maintenance_ms = maintenance_ms + %(maintenance_ms)s
     WHERE id = %(import_id)s AND epoch = %(epoch)s AND status = 'RUNNING'
    RETURNING id, status
), timed AS (
    UPDATE import_clocks SET elapsed_ms = greatest(elapsed_ms, %(elapsed_ms)s) FROM ended WHERE import_id = id
), <closed>
SELECT <told> FROM ended;

-- ending --
-- Fragment: what the end of a run sets. %(error)s is the reason of an end that nobody asked for.
status = %(status)s, error = %(error)s, updated_at = clock_timestamp(),
       end_number = CASE WHEN <is_end> THEN <next_end> END,
       phase = CASE WHEN %(status)s = 'COMPLETED' THEN 'done' ELSE phase END,
       completed_at = CASE WHEN <is_end> THEN clock_timestamp() END,
       last_row_hash = (SELECT last_row_hash FROM import_lanes WHERE import_id = imports.id ORDER BY last_line DESC LIMIT 1)

-- closed --
-- Fragment, which goes on after `ended`: done requests go, and what a failed or cancelled import had set aside for the end of
-- its file is given up. These rows count as not read, so that the counts tell of rows with an outcome only: pending ones, and
-- parked ones that were counted as duplicates. Of a completed import pending rows are left only if it was resumed after
-- another one had written: some were counted twice. All on lane 0: only the sum of the lanes is used.
answered AS (
    DELETE FROM import_requests USING ended WHERE import_id = id AND status <> 'INTERRUPTED'
), given_up AS (
    DELETE FROM import_parked AS p USING ended WHERE p.import_id = id AND status IN ('FAILED', 'CANCELLED') RETURNING p.is_first
), waiting AS (
    SELECT l.import_id, status = 'COMPLETED' AS is_completed, sum(l.rows_pending) AS pending, (SELECT count(*) FROM given_up WHERE NOT is_first) AS later
      FROM import_lanes AS l JOIN ended ON l.import_id = id
     WHERE status IN ('FAILED', 'CANCELLED', 'COMPLETED') GROUP BY l.import_id, status
), counted AS (
    UPDATE import_lanes AS l
       SET rows_processed = rows_processed - CASE WHEN is_completed THEN 0 ELSE pending END - later,
           rows_unchanged = rows_unchanged + CASE WHEN is_completed THEN pending ELSE 0 END,
           rows_pending = rows_pending - pending,
           rows_duplicate = rows_duplicate - later
      FROM waiting AS w WHERE l.import_id = w.import_id AND l.lane = 0 AND (pending <> 0 OR later <> 0)
)

-- told --
-- Fragment: tells all who listen of the state of `ended`.
pg_notify('customer_panel', json_build_object('jobId', id::text, 'status', status)::text)

-- leftovers --
-- Imports that have ended and left parked or pending rows: their processes could not put that in order.
SELECT id, status FROM imports
 WHERE status IN ('FAILED', 'CANCELLED')
   AND (EXISTS (SELECT FROM import_parked WHERE import_id = id)
        OR (SELECT sum(rows_pending) FROM import_lanes WHERE import_id = id) <> 0);

-- close_leftovers --
-- Gives these rows up.
WITH ended AS (<leftovers>), <closed>
SELECT id, <told> FROM ended;

-- deferred_import --
-- The import whose rows have no keys if the table has none, the newest first load; and the newest import.
SELECT max(id) FILTER (WHERE keys_deferred), max(id) FROM imports;

-- explain_import --
-- Says why an interrupted import does not go on. It does not count as a change of the job. No row back: nothing new.
UPDATE imports SET error = %(error)s
 WHERE id = %(import_id)s AND status = 'INTERRUPTED' AND error IS DISTINCT FROM %(error)s
RETURNING <told>;

-- next_end --
-- Fragment: the number of an end. Ends become visible in the order of their numbers: a reader of one sees all lower ones too.
(SELECT nextval('import_ends') FROM pg_advisory_xact_lock(hashtextextended('customer_panel.import_ends', 0)))

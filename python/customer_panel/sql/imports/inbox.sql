-- What was submitted to the server's worker.

-- set_progress_every --
-- How often streams get the progress of this import.
UPDATE imports SET progress_every_ms = %(progress_every_ms)s WHERE id = %(import_id)s;

-- What is asked of a running import.

-- requested --
-- What was asked of an import and is not done yet.
SELECT requested FROM import_requests WHERE import_id = %(import_id)s;

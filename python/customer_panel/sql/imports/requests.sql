-- Requests to a running import.

-- requested --
-- The request to an import that is not done yet.
SELECT requested FROM import_requests WHERE import_id = %(import_id)s;

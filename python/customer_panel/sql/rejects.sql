-- What an import set aside.

-- rejects --
-- Rejects and warnings in file order; limit NULL: all of them.
SELECT line, byte_from, byte_to, severity, code, field, message, raw
  FROM import_rejects WHERE import_id = %(import_id)s ORDER BY byte_from LIMIT %(limit)s;

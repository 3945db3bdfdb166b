-- Rejects and warnings of imports.

-- page_rejects --
-- Rejects and warnings of an import in file order: those after the byte %(after)s, without the first %(offset)s.
SELECT line, byte_from, byte_to, severity, code, field, message, raw
  FROM import_rejects WHERE import_id = %(import_id)s AND byte_from > %(after)s ORDER BY byte_from
 LIMIT %(limit)s OFFSET %(offset)s;

-- count_rejects --
-- How many rejects and warnings an import has.
SELECT count(*) FROM import_rejects WHERE import_id = %(import_id)s;

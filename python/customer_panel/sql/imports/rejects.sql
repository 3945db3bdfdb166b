-- What imports set aside.

-- page_rejects --
-- Rejects and warnings of an import in file order, behind the byte %(after)s, after so many that are left out.
SELECT line, byte_from, byte_to, severity, code, field, message, raw
  FROM import_rejects WHERE import_id = %(import_id)s AND byte_from > %(after)s ORDER BY byte_from
 LIMIT %(limit)s OFFSET %(offset)s;

-- count_rejects --
-- How many rejects and warnings an import has.
SELECT count(*) FROM import_rejects WHERE import_id = %(import_id)s;

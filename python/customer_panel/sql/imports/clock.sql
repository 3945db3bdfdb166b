-- The time that an import has taken.

-- beat --
-- Raises the time of a running import. No row back means that the claim is lost.
UPDATE import_clocks SET elapsed_ms = greatest(elapsed_ms, %(elapsed_ms)s)
 WHERE import_id = %(import_id)s
   AND EXISTS (SELECT FROM imports WHERE id = %(import_id)s AND epoch = %(epoch)s AND status = 'RUNNING')
RETURNING elapsed_ms;

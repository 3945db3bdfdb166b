-- A job whose plan is decided after it was made.

-- decide_import --
-- How the file of a job is read, once it stands still. No row back means the claim is lost.
UPDATE imports
   SET file_size = %(file_size)s, file_device = %(file_device)s, file_inode = %(file_inode)s, file_mtime_ns = %(file_mtime_ns)s,
       delimiter = %(delimiter)s, headers = %(headers)s, mapping = %(mapping)s, data_start = %(data_start)s,
       header_lines = %(header_lines)s, rules_version = %(rules_version)s, options = %(options)s,
       keys_deferred = %(keys_deferred)s
 WHERE id = %(import_id)s AND epoch = %(epoch)s AND status = 'RUNNING'
RETURNING id;

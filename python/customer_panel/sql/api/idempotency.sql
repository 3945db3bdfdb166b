-- Keys of creates: a create that is repeated with its key within 24 hours gets the first result.

-- take_key --
-- Takes a key that is new or older than 24 hours. Waits for another session that takes it now. No row back: it is taken.
INSERT INTO idempotency_keys AS k (key_hash, body_hash, created_id, created_at)
VALUES (%(key)s, %(body)s, %(created_id)s, clock_timestamp())
ON CONFLICT (key_hash) DO UPDATE
   SET body_hash = excluded.body_hash, created_id = excluded.created_id, created_at = excluded.created_at
 WHERE k.created_at < clock_timestamp() - interval '24 hours'
RETURNING true;

-- find_key --
-- What a key was taken for, within 24 hours.
SELECT body_hash, created_id FROM idempotency_keys
 WHERE key_hash = %(key)s AND created_at >= clock_timestamp() - interval '24 hours';

-- keep_key --
-- Notes what was created with a key that was taken in the same transaction.
UPDATE idempotency_keys SET created_id = %(created_id)s WHERE key_hash = %(key)s;

-- drop_old_keys --
-- Deletes some of the keys that are older than 24 hours. Skips those that another session deletes now.
DELETE FROM idempotency_keys
 WHERE key_hash IN (SELECT key_hash FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '24 hours'
                     ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED);

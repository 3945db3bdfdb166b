-- Creates that are repeated with their key: the first result again, for 24 hours.

-- take_key --
-- Takes a key, also one that is older than 24 hours; waits for a concurrent taker. No row back: it is taken.
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
-- Some of the keys that are older than 24 hours; those that others drop at the same moment are theirs.
DELETE FROM idempotency_keys
 WHERE key_hash IN (SELECT key_hash FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '24 hours'
                     ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED);

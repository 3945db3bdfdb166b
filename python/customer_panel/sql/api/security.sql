-- Tickets that open a progress stream, for clients that cannot send a header.

-- issue_ticket --
-- Keeps the hash of a new ticket; those that ran out go.
WITH gone AS (DELETE FROM stream_tickets WHERE expires_at < now())
INSERT INTO stream_tickets (hash, expires_at) VALUES (%(hash)s, now() + make_interval(secs => %(seconds)s))
RETURNING expires_at;

-- redeem_ticket --
-- A ticket is good once: of two who present it at the same time, one gets the row.
DELETE FROM stream_tickets WHERE hash = %(hash)s RETURNING expires_at > now();

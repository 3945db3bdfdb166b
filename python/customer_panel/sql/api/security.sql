-- Tickets that open a progress stream, for clients that cannot send a header.

-- issue_ticket --
-- Stores the hash of a new ticket, and deletes expired ones.
WITH gone AS (DELETE FROM stream_tickets WHERE expires_at < now())
INSERT INTO stream_tickets (hash, expires_at) VALUES (%(hash)s, now() + make_interval(secs => %(seconds)s))
RETURNING expires_at;

-- redeem_ticket --
-- Uses up a ticket: of two requests with it at the same time, only one gets the row.
DELETE FROM stream_tickets WHERE hash = %(hash)s RETURNING expires_at > now();

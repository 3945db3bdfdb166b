-- migrate:up

-- Tables without a key: a publication of all tables would refuse every fold of the totals.
ALTER TABLE customer_totals REPLICA IDENTITY FULL;
ALTER TABLE customer_history REPLICA IDENTITY FULL;

-- migrate:down

ALTER TABLE customer_totals REPLICA IDENTITY DEFAULT;
ALTER TABLE customer_history REPLICA IDENTITY DEFAULT;

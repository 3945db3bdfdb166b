-- Customers by id, many at once.

-- look_up_customers --
-- Some customers by id, in any order; ids without a customer give no row. Prepared through libpq, so its parameter is $1.
SELECT <shown> FROM customers AS c WHERE c.id = ANY($1::bigint[]) AND c.deleted_at IS NULL;

-- Expressions over a customer `c`, shared by all who read or write customers.

-- shown --
-- Fragment: what the API shows of a customer, as it shows it.
c.id, c.customer_id, [[{shown}|, ]],
       to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
       to_char(c.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- filled --
-- Fragment: bit set of the columns that have a value.
([[CASE WHEN c.{c} IS NOT NULL THEN {bit} ELSE 0 END| + ]])

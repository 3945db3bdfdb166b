-- Expressions over a customer `c`, shared by the statements that read or write customers.

-- shown --
-- Fragment: a customer as the API shows it.
c.id, c.customer_id, [[{shown}|, ]],
       to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
       to_char(c.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- filled --
-- Fragment: bit set of the columns that have a value.
([[CASE WHEN c.{c} IS NOT NULL THEN {bit} ELSE 0 END| + ]])

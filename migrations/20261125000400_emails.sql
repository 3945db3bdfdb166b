-- migrate:up

-- With the seed anybody could make identities whose hashes are equal. It is for those who import.
REVOKE ALL ON database_seed FROM PUBLIC;

-- E-mails are stored in lower case and in NFC from now on; so far they were stored in lower case only.
DO $$
DECLARE
    held bigint;
BEGIN
    -- normalize() is for UTF-8 alone.
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RETURN;
    END IF;
    -- Another spelling of the same address is no edit.
    PERFORM set_config('customer_panel.import', 'on', true);
    UPDATE customers SET email = normalize(email, NFC) WHERE email IS NOT NFC NORMALIZED;
    UPDATE customers SET edit_base[9] = normalize(edit_base[9], NFC) WHERE edit_base[9] IS NOT NFC NORMALIZED;

    -- An identity that was given was stored in NFC before; any other is an e-mail. It gets its new name unless another
    -- customer has that, or is about to get it.
    CREATE TEMPORARY TABLE renamed ON COMMIT DROP AS
    SELECT * FROM (SELECT customer_id AS was, normalize(customer_id, NFC) AS name,
                          count(*) OVER (PARTITION BY normalize(customer_id, NFC)) AS claims
                     FROM customers WHERE customer_id IS NOT NFC NORMALIZED) AS old
     WHERE claims = 1 AND NOT EXISTS (SELECT FROM customers WHERE customer_id = old.name);
    UPDATE customers SET customer_id = name FROM renamed WHERE customer_id = was;
    UPDATE customer_history SET customer_id = name FROM renamed WHERE customer_id = was;
    PERFORM set_config('customer_panel.import', '', true);
    UPDATE import_parked SET email = normalize(email, NFC) WHERE email IS NOT NFC NORMALIZED;
    UPDATE import_parked AS p SET customer_id = normalize(customer_id, NFC)
     WHERE customer_id IS NOT NFC NORMALIZED
       AND NOT EXISTS (SELECT FROM import_parked AS o
                        WHERE o.import_id = p.import_id AND o.customer_id = normalize(p.customer_id, NFC));

    SELECT count(*) INTO held FROM customers WHERE customer_id IS NOT NFC NORMALIZED;
    IF held > 0 THEN
        RAISE WARNING '% customers keep an identity that no import will find: another customer has their e-mail as identity', held
              USING HINT = 'SELECT id FROM customers WHERE customer_id IS NOT NFC NORMALIZED';
    END IF;
END $$;

-- migrate:down
-- The spellings of before are not known any more, and nothing needs them: they were found by no rule.
SELECT;

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
    -- One pass over the table: nearly all rows stay as they are.
    CREATE TEMPORARY TABLE respelled ON COMMIT DROP AS
    SELECT id, customer_id AS was, normalize(customer_id, NFC) AS name FROM customers
     WHERE email IS NOT NFC NORMALIZED OR customer_id IS NOT NFC NORMALIZED OR edit_base[9] IS NOT NFC NORMALIZED;

    -- Another spelling of the same address is no edit.
    PERFORM set_config('customer_panel.import', 'on', true);
    UPDATE customers SET email = normalize(email, NFC)
     WHERE id IN (SELECT id FROM respelled) AND email IS NOT NFC NORMALIZED;
    UPDATE customers SET edit_base[9] = normalize(edit_base[9], NFC)
     WHERE id IN (SELECT id FROM respelled) AND edit_base[9] IS NOT NFC NORMALIZED;

    -- An identity that was given was stored in NFC before; any other is an e-mail. It gets its new name unless another
    -- customer has that, or is about to get it.
    DELETE FROM respelled WHERE was = name;
    SELECT count(*) INTO held FROM respelled;
    DELETE FROM respelled
     WHERE name IN (SELECT name FROM respelled GROUP BY name HAVING count(*) > 1)
        OR name IN (SELECT c.customer_id FROM customers AS c JOIN respelled AS r ON c.customer_id = r.name);
    SELECT held - count(*) INTO held FROM respelled;
    UPDATE customers SET customer_id = name FROM respelled WHERE customer_id = was;
    UPDATE customer_history SET customer_id = name FROM respelled WHERE customer_id = was;
    PERFORM set_config('customer_panel.import', '', true);
    UPDATE import_parked SET email = normalize(email, NFC) WHERE email IS NOT NFC NORMALIZED;
    UPDATE import_parked AS p SET customer_id = normalize(customer_id, NFC)
     WHERE customer_id IS NOT NFC NORMALIZED
       AND NOT EXISTS (SELECT FROM import_parked AS o
                        WHERE o.import_id = p.import_id AND o.customer_id = normalize(p.customer_id, NFC));

    IF held > 0 THEN
        RAISE WARNING '% customers keep an identity that no import will find: another customer has their e-mail as identity', held
              USING HINT = 'SELECT id FROM customers WHERE customer_id IS NOT NFC NORMALIZED';
    END IF;
END $$;

-- migrate:down
-- The spellings of before are gone, and nothing needs them.
SELECT;

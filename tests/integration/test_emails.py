"""One address is one customer, whatever its spelling: in files, in the table, in questions."""

from __future__ import annotations

import psycopg
import pytest

from customer_panel.db.migrate import known, migrate
from support.compare import content, counts, run
from support.customers import create_customer, customer_body
from support.envelope import failed, ok
from support.reference import Reference

HEADER = "Email,First Name,City\n"
MAC = "Ju\u0308rgen.Mu\u0308ller@Scho\u0308n.example"
WINDOWS = "J\u00fcrgen.M\u00fcller@Sch\u00f6n.example"
STORED = "j\u00fcrgen.m\u00fcller@sch\u00f6n.example"
# A capital for which Unicode has no composed character; its small letter has one.
CARON = "J\u030c@x.example"
SMALL_CARON = "\u01f0@x.example"
SPELLINGS = [
    (MAC, [MAC, WINDOWS, WINDOWS.upper(), MAC.lower(), STORED], STORED),
    (CARON, [CARON, CARON.lower(), SMALL_CARON, " J\u030c@X.Example "], SMALL_CARON),
]
VERSION = "20261125000400"  # of the migration of e-mails


def written(tmp_path, name, *rows):
    path = tmp_path / name
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "others", "stored"), SPELLINGS)
def test_files_with_other_spellings_bring_the_same_customer(dsn, tmp_path, first, others, stored):
    done = run(written(tmp_path, "first.csv", f"{first},Ada,Rome"), dsn)
    assert (done.rows_processed, done.rows_inserted) == (1, 1)
    for number, other in enumerate(others):
        done = run(written(tmp_path, f"{number}.csv", f"{other},Ada,Rome"), dsn)
        assert (done.rows_processed, done.rows_unchanged) == (1, 1), ascii(other)
    found = content(dsn)
    assert list(found) == [stored]
    assert stored in found[stored][1:]


@pytest.mark.parametrize(("first", "others", "stored"), SPELLINGS)
def test_spellings_in_one_file_are_duplicates(dsn, tmp_path, first, others, stored):
    rows = [f"{other},Ada,City {number}" for number, other in enumerate([first, *others])]
    file = written(tmp_path, "all.csv", *rows)
    done = run(file, dsn)
    assert (done.rows_inserted, done.rows_duplicate) == (1, len(others))
    found = content(dsn)
    assert list(found) == [stored]
    assert f"City {len(others)}" in found[stored]
    reference = Reference()
    expected, _ = reference.load(file.read_bytes())
    assert counts(done) == expected
    assert list(reference.customers) == [stored]


def test_an_address_beside_a_number_is_unchanged_in_any_spelling(dsn, tmp_path):
    for number, (spelling, outcome) in enumerate(
        [(MAC, "inserted"), (WINDOWS, "unchanged"), (STORED.upper(), "unchanged")]
    ):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"Customer Id,Email\nA-1,{spelling}\n")
        done = run(path, dsn)
        assert getattr(done, f"rows_{outcome}") == done.rows_processed == 1
    assert STORED in content(dsn)["A-1"]


def test_a_limit_counts_the_characters_that_are_stored(dsn, tmp_path):
    fits = "o\u0308" * 252 + "@x"
    too_long = "\u0130" * 127 + "@x"  # its small letter is two characters
    done = run(written(tmp_path, "long.csv", f"{fits},Ada,", f"{too_long},Ada,"), dsn)
    assert (done.rows_inserted, done.rows_skipped) == (1, 1)
    assert list(content(dsn)) == ["\u00f6" * 252 + "@x"]


# -- the API ---------------------------------------------------------------------------------------


@pytest.fixture
def from_a_file(api, shared_dsn, tmp_path):
    """Customers of a file of addresses, in the database of `api`."""
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute("TRUNCATE customers, customer_totals, customer_history, imports CASCADE")
    rows = [f"{first},Ada,Rome" for first, _, _ in SPELLINGS]
    run(written(tmp_path, "file.csv", *rows), shared_dsn)


@pytest.mark.parametrize(("first", "others", "stored"), SPELLINGS)
def test_a_customer_is_found_by_any_spelling(api, from_a_file, first, others, stored):
    for spelling in (first, *others):
        for field in ("email", "customerId"):
            found = ok(api.get("/customers", **{field: spelling}))["data"]
            assert [(row["email"], row["customerId"]) for row in found] == [(stored, stored)]
        found = ok(api.get("/customers", email=spelling, customerId=spelling))
        assert found["pagination"]["totalItems"] == 1


@pytest.mark.parametrize(("first", "others", "stored"), SPELLINGS)
def test_another_spelling_is_taken(api, from_a_file, first, others, stored):
    another = create_customer(api)
    for spelling in (first, *others):
        failed(api.post("/customers", customer_body(email=spelling)), 409)
        failed(api.patch(f"/customers/{another['id']}", {"email": spelling}), 409)
    (own,) = ok(api.get("/customers", email=first))["data"]
    for spelling in others:
        # Its own address in another spelling changes nothing.
        assert ok(api.patch(f"/customers/{own['id']}", {"email": spelling})) == own


@pytest.mark.parametrize(("first", "others", "stored"), SPELLINGS)
def test_an_address_that_is_typed_is_stored_as_a_file_would_store_it(
    api, shared_dsn, first, others, stored
):
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        conn.execute("TRUNCATE customers, customer_totals, customer_history")
    made = create_customer(api, email=first)
    assert made["email"] == stored
    for spelling in (first, *others):
        assert ok(api.get("/customers", email=spelling))["data"] == [made]
        failed(api.post("/customers", customer_body(email=spelling)), 409)
    other = create_customer(api)
    ok(api.delete(f"/customers/{made['id']}"))
    for spelling in others:
        moved = ok(api.patch(f"/customers/{other['id']}", {"email": spelling}))
        assert moved["email"] == stored


def test_an_identity_that_was_given_keeps_its_letters(api):
    given = create_customer(api, customerId="Jane@Realm.example")
    assert given["customerId"] == "Jane@Realm.example"
    assert ok(api.get("/customers", customerId="Jane@Realm.example"))["data"] == [given]
    # Another one, as in files.
    small = create_customer(api, customerId="jane@realm.example")
    assert ok(api.get("/customers", customerId="Jane@Realm.example"))["data"] == [small, given]
    # What is no address is never lower-cased.
    create_customer(api, customerId="abc")
    assert ok(api.get("/customers", customerId="ABC"))["data"] == []


def labels(length):
    """A domain of so many characters, each of which the other spelling writes as two."""
    return "\u00f6" * (length - 4) + ".org"


def test_limits_count_the_characters_that_are_stored(api):
    email = f"x@{labels(252)}"
    apart = email.replace("\u00f6", "o\u0308")
    assert (len(email), len(apart)) == (254, 502)
    made = create_customer(api, email=apart)
    assert made["email"] == email
    for spelling in (email, apart, f"  {apart}"):
        assert ok(api.get("/customers", email=spelling))["data"] == [made]
    longer = f"x@{labels(253)}"
    grows = "\u0130" * 130 + "@x.org"  # its small letter is two characters
    for refused in (longer, longer.replace("\u00f6", "o\u0308"), grows):
        for answer in (
            api.post("/customers", customer_body(email=refused)),
            api.patch(f"/customers/{made['id']}", {"email": refused}),
            api.get("/customers", email=refused),
        ):
            error = failed(answer, 400)
            assert [detail["field"] for detail in error["details"]] == ["email"]

    identity = "o\u0308" * 255
    made = create_customer(api, customerId=identity)
    assert made["customerId"] == "\u00f6" * 255
    assert ok(api.patch(f"/customers/{made['id']}", {"customerId": identity})) == made
    assert ok(api.get("/customers", customerId=identity))["data"] == [made]
    for refused in ("o\u0308" * 256, "\u0958" * 128):
        for answer in (
            api.post("/customers", customer_body(customerId=refused)),
            api.get("/customers", customerId=refused),
        ):
            error = failed(answer, 400)
            assert [detail["field"] for detail in error["details"]] == ["customerId"]


def test_an_address_is_judged_as_it_is_stored(api):
    # U+037E is the semicolon of NFC, which an address does not hold outside quotes.
    for email in ("a;b@example.com", "a\u037eb@example.com"):
        error = failed(api.post("/customers", customer_body(email=email)), 400)
        assert [detail["field"] for detail in error["details"]] == ["email"]


# -- rows of before --------------------------------------------------------------------------------


@pytest.fixture
def before(empty_dsn, tmp_path):
    """A database whose schema ends before the migration of e-mails; calls give it that one."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for migration in known():
        if migration.version < VERSION:
            (folder / migration.path.name).write_text(migration.path.read_text())
    migrate(empty_dsn, folder)

    def upgrade():
        assert migrate(empty_dsn)[0] == VERSION

    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        yield conn, upgrade


def insert(conn, customer_id, email, **more):
    values = {"customer_id": customer_id, "email": email, "import_id": 1, "source_id": 1, **more}
    conn.execute(
        f"INSERT INTO customers ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})",
        list(values.values()),
    )


def test_rows_of_before_get_the_spelling_of_today(before, empty_dsn, tmp_path):
    conn, upgrade = before
    insert(conn, "A-1", MAC.lower())
    insert(conn, "A-2", "ascii@example.com")
    insert(conn, CARON.lower(), CARON.lower(), first_name="Ada")
    conn.execute(
        "INSERT INTO customer_history (customer_id, fields, old_values)"
        " VALUES (%s, 2, array_fill('x'::text, ARRAY[12]))",
        [CARON.lower()],
    )
    was = conn.execute("SELECT customer_id, id, updated_at FROM customers").fetchall()
    upgrade()
    found = conn.execute("SELECT customer_id, email FROM customers ORDER BY id").fetchall()
    assert found == [
        ("A-1", STORED),
        ("A-2", "ascii@example.com"),
        (SMALL_CARON, SMALL_CARON),
    ]
    assert conn.execute("SELECT customer_id FROM customer_history").fetchall() == [(SMALL_CARON,)]
    # It is no edit of anybody, and no change.
    assert conn.execute("SELECT sum(edited_fields) FROM customers").fetchone() == (0,)
    now = conn.execute("SELECT customer_id, id, updated_at FROM customers").fetchall()
    assert {row[1:] for row in now} == {row[1:] for row in was}
    done = run(written(tmp_path, "again.csv", f"{CARON},Ada,"), empty_dsn)
    assert (done.rows_inserted, done.rows_processed) == (0, 1)


def test_an_edited_address_keeps_its_base_in_the_spelling_of_today(before):
    """Else the base would differ from what the next file brings, although it brings the same."""
    conn, upgrade = before
    insert(conn, "A-1", MAC.lower())
    conn.execute("UPDATE customers SET email = %s", ["Scho\u0308n@example.com".lower()])
    upgrade()
    row = conn.execute("SELECT email, edited_fields, edit_base[9] FROM customers").fetchone()
    assert row == ("sch\u00f6n@example.com", 1 << 8, STORED)


def test_an_identity_whose_new_name_is_taken_stays_and_is_said(before, caplog):
    conn, upgrade = before
    insert(conn, CARON.lower(), CARON.lower(), city="Old")
    insert(conn, SMALL_CARON, SMALL_CARON, city="New")
    # Two that would get the same name: neither is preferred.
    two = ["j\u030c\u01f0@y", "\u01f0j\u030c@y"]
    for identity in two:
        insert(conn, identity, identity)
    upgrade()
    rows = conn.execute("SELECT customer_id, email, city FROM customers ORDER BY id").fetchall()
    assert rows == [
        (CARON.lower(), SMALL_CARON, "Old"),
        (SMALL_CARON, SMALL_CARON, "New"),
        (two[0], "\u01f0\u01f0@y", None),
        (two[1], "\u01f0\u01f0@y", None),
    ]
    (said,) = caplog.messages
    assert said.startswith("3 customers keep an identity")
    assert "@" not in said


def test_rows_that_wait_get_the_spelling_of_today(before):
    conn, upgrade = before
    conn.execute("INSERT INTO sources (name) VALUES ('main')")
    conn.execute(
        "INSERT INTO imports (source_id, status, phase, delimiter, headers, mapping, data_start,"
        " header_lines, rules_version, options)"
        " VALUES (1, 'INTERRUPTED', 'scanning', ',', '{}', '{}', 0, 1, 1, '{}')"
    )
    for line, identity in enumerate([CARON.lower(), "A-1"]):
        conn.execute(
            "INSERT INTO import_parked (import_id, source_line, source_hash, customer_id, email,"
            " is_first) VALUES (1, %s, 1, %s, %s, true)",
            [line, identity, MAC.lower()],
        )
    upgrade()
    found = conn.execute("SELECT customer_id, email FROM import_parked ORDER BY source_line")
    assert found.fetchall() == [(SMALL_CARON, STORED), ("A-1", STORED)]


def test_a_database_without_unicode_is_left_alone(databases, tmp_path):
    """No normalize() there: the migration must not fail."""
    databases.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    )
    try:
        dsn = databases.dsn("latin")
        assert VERSION in migrate(dsn)
    finally:
        databases.execute("DROP DATABASE latin WITH (FORCE)")


# -- the seed --------------------------------------------------------------------------------------


def test_the_seed_is_not_for_everybody(before, server):
    """Not even where everything was granted to everybody before."""
    conn, upgrade = before
    conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
    conn.execute("GRANT SELECT (seed) ON database_seed TO PUBLIC")
    conn.execute("CREATE ROLE reader_of_customers")
    try:
        conn.execute("GRANT USAGE ON SCHEMA public TO reader_of_customers")
        conn.execute("GRANT SELECT ON customers TO reader_of_customers")
        upgrade()
        conn.execute("SET ROLE reader_of_customers")
        assert conn.execute("SELECT count(*) FROM customers").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT seed FROM database_seed")
        conn.execute("RESET ROLE")
        # Who owns the table, as who imports does, reads it.
        assert conn.execute("SELECT count(seed) FROM database_seed").fetchone() == (1,)
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP OWNED BY reader_of_customers")
        conn.execute("DROP ROLE reader_of_customers")

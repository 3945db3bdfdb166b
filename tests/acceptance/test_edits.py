"""What people do by hand, before, between and during imports, survives them and is counted."""

from __future__ import annotations

import contextlib
import csv
import io
import random
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from customer_panel import _native
from customer_panel.imports.engine.apply import Writer
from support.compare import content, counts, expected, run
from support.reference import NAMES, Reference, Value

TEXTS = [name for name in NAMES[1:] if name != "subscription_date"]


def generate(path: Path, rows: int, **options: Any) -> list[dict[str, str]]:
    """Writes a file and returns its rows, which are clean."""
    _native.generate(str(path), rows, **options)
    return list(csv.DictReader(io.StringIO(path.read_text(), newline="")))


class People:
    """Does the same in the database, as plain SQL of an ordinary session, and in the reference."""

    def __init__(self, conn: psycopg.Connection, reference: Reference, seed: int) -> None:
        self.conn, self.reference, self.draw = conn, reference, random.Random(seed)

    def some(self, count: int) -> list[str]:
        return self.draw.sample(sorted(self.reference.customers), count)

    def edit(self, key: str, **values: Value) -> None:
        assignments = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
            for name in values
        )
        self.conn.execute(
            sql.SQL("UPDATE customers SET {} WHERE customer_id = %(key)s").format(assignments),
            values | {"key": key},
        )
        self.reference.edit(key, **values)

    def delete(self, key: str) -> None:
        self.conn.execute("UPDATE customers SET deleted_at = now() WHERE customer_id = %s", [key])
        self.reference.delete(key)

    def create(self, key: str, **values: Value) -> None:
        names = sql.SQL(", ").join(map(sql.Identifier, ["customer_id", *values]))
        self.conn.execute(
            sql.SQL("INSERT INTO customers ({}) VALUES ({})").format(
                names, sql.SQL(", ").join(sql.Placeholder() * (len(values) + 1))
            ),
            [key, *values.values()],
        )
        self.reference.create(key, **values)

    def work(self) -> None:
        """An ordinary day: some of everything."""
        for key in self.some(60):
            fields = self.draw.sample(TEXTS, self.draw.randint(1, 4))
            self.edit(key, **{name: self.draw.choice(["Ed", "it", None]) for name in fields})
        for key in self.some(20):
            self.delete(key)


@pytest.mark.parametrize("blank", ["keep", "clear"])
@pytest.mark.parametrize("feeds", [["main"], ["main", "crm"]], ids="-".join)
def test_days_of_people_between_nights_of_imports(tmp_path, dsn, database, blank, feeds):
    reference = Reference()
    people = People(database, reference, seed=3)
    for number, changed in enumerate([0, 0.2, 0, 0.5, 0]):
        path = tmp_path / f"{number}.csv"
        options = {"seed": 9, "duplicates": 0.1 if number % 2 else 0.02, "dirty": 0.1}
        rows = generate_any(path, 1500, changed=changed, **options)
        feed = feeds[number % len(feeds)]
        wanted, _ = reference.load(rows, feed=feed, clear=blank == "clear")
        result = run(path, dsn, blank=blank, feed=feed, batch_rows=400)
        assert content(dsn) == expected(reference), number
        assert counts(result) == wanted, number
        people.work()
        for created in range(20):
            # Later files hold no such customer, but the last one does.
            people.create(f"hand-{number}-{created}", first_name="Hand", city=None)
    last = tmp_path / "last.csv"
    lines = [b"customer id,first name,city,phone"]
    lines += [f"hand-{n}-{c},File,Town,{c}".encode() for n in range(5) for c in range(0, 20, 2)]
    last.write_bytes(b"\n".join(lines) + b"\n")
    wanted, _ = reference.load(last.read_bytes(), clear=blank == "clear")
    assert wanted.protected == 50
    assert counts(run(last, dsn, blank=blank)) == wanted
    assert content(dsn) == expected(reference)


def generate_any(path: Path, rows: int, **options: Any) -> bytes:
    _native.generate(str(path), rows, **options)
    return path.read_bytes()


def test_a_conflict_keeps_the_edit_and_remembers_what_the_file_brought(tmp_path, dsn, database):
    path = tmp_path / "1.csv"
    path.write_text("id,city,company\n1,Rome,Acme\n2,Oslo,Acme\n")
    run(path, dsn)
    database.execute("UPDATE customers SET city = 'Paris' WHERE customer_id = '1'")
    path.write_text("id,city,company\n1,Bonn,New\n2,Oslo,Acme\n")
    result = run(path, dsn)
    assert (result.rows_protected, result.rows_unchanged) == (1, 1)
    row = database.execute(
        "SELECT city, company, edited_fields, edit_base[5] FROM customers WHERE customer_id = '1'"
    ).fetchone()
    assert row == ("Paris", "New", 1 << NAMES.index("city"), "Bonn")
    history = database.execute(
        "SELECT import_id, fields, old_values[5] FROM customer_history ORDER BY changed_at"
    ).fetchall()
    assert history == [
        (None, 1 << NAMES.index("city"), "Rome"),
        (result.job_id, 1 << NAMES.index("company"), "Paris"),
    ]


def test_several_rows_of_an_edited_customer_are_one_conflict_or_none(tmp_path, dsn, database):
    """Judged by what the file says in the end, not by each of its rows."""
    reference = Reference()
    people = People(database, reference, seed=1)
    path = tmp_path / "file.csv"
    cities = {"kept": ["Bonn", "Paris"], "conflict": ["Paris", "Bonn"]}

    def load(rows: list[tuple[str, str]]) -> Any:
        path.write_text("id,city\n" + "".join(f"{key},{city}\n" for key, city in rows))
        wanted, _ = reference.load(path.read_bytes())
        assert counts(run(path, dsn)) == wanted
        assert content(dsn) == expected(reference)
        return wanted

    for key, both in cities.items():
        load([(key, "Rome")])
        people.edit(key, city="Paris")
        wanted = load([(key, city) for city in both])
        assert wanted.protected == (key == "conflict")


def test_a_column_that_the_file_does_not_have_is_left_alone(tmp_path, dsn):
    reference = Reference()
    for text in (
        "id,first name,city,phone,email\n1,Ann,Rome,11,a@x.y\n2,Bob,,22,\n",
        "id,city\n1,Oslo\n2,\n3,Bern\n",
        "email,id,last name\nnew@x.y,2,Lee\n,1,\n",
    ):
        for blank in ("keep", "clear"):
            path = tmp_path / "file.csv"
            path.write_text(text)
            wanted, _ = reference.load(text.encode(), clear=blank == "clear")
            assert counts(run(path, dsn, blank=blank)) == wanted
            assert content(dsn) == expected(reference)
    assert content(dsn)["1"][:2] == ("Ann", None)


# -- during an import -----------------------------------------------------------------------------


class Between:
    """Calls something in each gap between two batches, from the lane's thread."""

    def __init__(self, monkeypatch) -> None:
        self.apply = Writer.apply
        self.monkeypatch = monkeypatch

    def before_batch(self, call) -> None:
        lock, numbers = threading.Lock(), iter(range(10_000))

        def applied(writer, batch):
            with lock:
                call(next(numbers))
            return self.apply(writer, batch)

        self.monkeypatch.setattr(Writer, "apply", applied)


@pytest.fixture
def between(monkeypatch) -> Between:
    return Between(monkeypatch)


@pytest.mark.parametrize("is_first_load", [True, False], ids=["no keys", "keys"])
def test_made_by_hand_while_the_import_runs_is_as_if_made_before(
    tmp_path, dsn, database, between, is_first_load
):
    """Twins of a first load are merged before its key is built; else the batch is merged."""
    reference = Reference()
    people = People(database, reference, seed=5)
    if not is_first_load:
        path = tmp_path / "before.csv"
        reference.load(generate_any(path, 2000, seed=77))
        run(path, dsn)
    path = tmp_path / "file.csv"
    rows = generate(path, 4000, seed=78, duplicates=0.05)
    keys = sorted({row["Customer Id"] for row in rows})
    tried, made = people.draw.sample(keys, 100), []

    def make(number: int) -> None:
        for key in tried[number * 10 : number * 10 + 10]:
            # Where there are keys, nobody can make a customer that is there already.
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                people.create(key, first_name="Hand", phone2=None, city="Handtown")
                made.append(key)

    between.before_batch(make)
    result = run(path, dsn, lanes=2, batch_rows=300)
    created = Reference()
    created.customers = {
        key: customer for key, customer in reference.customers.items() if key not in made
    }
    for key in made:
        created.create(key, first_name="Hand", city="Handtown")
    wanted, _ = created.load(path.read_bytes())
    assert content(dsn) == expected(created)
    assert counts(result) == wanted
    assert wanted.protected == len(made) > 40
    assert not is_first_load or made == tried
    keys_there = database.execute(
        "SELECT count(*) FROM pg_index WHERE indrelid = 'customers'::regclass AND indisvalid"
    ).fetchone()
    assert keys_there == (3,)


def test_made_twice_while_there_is_no_key_is_one_customer(tmp_path, dsn, database, between):
    """Without its key the table refuses nothing; both with and without a row of the file."""
    path = tmp_path / "file.csv"
    path.write_text("id,first name,city\n1,File,Rome\n2,File,Oslo\n")

    def make(number: int) -> None:
        for key in ("1", "7") if number == 0 else ():
            for name, company in (("Ann", None), ("Bob", "Acme"), (None, "Inc")):
                database.execute(
                    "INSERT INTO customers (customer_id, first_name, company) VALUES (%s, %s, %s)",
                    [key, name, company],
                )

    between.before_batch(make)
    result = run(path, dsn)
    found = content(dsn)
    assert found["1"][:4] == ("Ann", None, "Acme", "Rome")
    assert found["7"][:4] == ("Ann", None, "Acme", None)
    assert found["2"][0] == "File"
    assert (result.rows_inserted, result.rows_protected) == (1, 1)
    given_up = database.execute(
        "SELECT customer_id, old_values[2], old_values[4] FROM customer_history"
        " WHERE import_id IS NULL ORDER BY 1, 3"
    ).fetchall()
    assert given_up == [
        (key, name, company)
        for key in ("1", "7")
        for name, company in (("Bob", "Acme"), (None, "Inc"))
    ]
    assert run(path, dsn).rows_inserted == 0


def test_edits_and_deletions_while_the_import_runs_are_kept(tmp_path, dsn, database, between):
    """Whichever of the two comes first to a row: the person's value stays, the rest is new."""
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    before = {row["Customer Id"]: row for row in generate(first, 5000, seed=4)}
    after = {row["Customer Id"]: row for row in generate(second, 5000, seed=4, changed=1)}
    run(first, dsn)
    draw = random.Random(8)
    edited = draw.sample(sorted(before), 600)
    deleted = draw.sample(sorted(set(before) - set(edited)), 200)

    def work(number: int) -> None:
        for key in edited[number * 30 : number * 30 + 30]:
            database.execute("UPDATE customers SET city = 'Handtown' WHERE customer_id = %s", [key])
        for key in deleted[number * 10 : number * 10 + 10]:
            database.execute(
                "UPDATE customers SET deleted_at = now() WHERE customer_id = %s", [key]
            )

    between.before_batch(work)
    run(second, dsn, lanes=2, batch_rows=200)
    found = content(dsn)
    city = NAMES.index("city") - 1
    others = [(NAMES.index(n) - 1, h) for n, h in (("company", "Company"), ("phone1", "Phone 1"))]
    for key in edited:
        assert found[key][city] == "Handtown"
        assert found[key][len(NAMES)] == 1 << NAMES.index("city")
        for at, header in others:
            assert found[key][at] == (after[key][header] or before[key][header])
    for key in deleted:
        assert found[key][13]
        # As it was before or after; it was deleted at one moment.
        assert found[key][others[0][0]] in (before[key]["Company"], after[key]["Company"])
    bases = database.execute(
        "SELECT customer_id, edit_base[5] FROM customers WHERE edited_fields <> 0"
    ).fetchall()
    assert len(bases) == len(edited)
    for key, base in bases:
        assert base == after[key]["City"], "the base is what imports brought last"
    # And none of it is lost the next time.
    again = run(second, dsn)
    assert again.rows_updated == 0
    assert content(dsn) == found


def test_concurrent_sessions_edit_many_rows_at_once(tmp_path, dsn):
    """Multi-row updates in an order of their own meet the merge's: deadlocks are repeated."""
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    keys = [row["Customer Id"] for row in generate(first, 6000, seed=4)]
    generate(second, 6000, seed=4, changed=1)
    run(first, dsn)
    ended = threading.Event()
    kept: dict[str, str] = {}

    def edit(seed: int) -> None:
        draw = random.Random(seed)
        with psycopg.connect(dsn, autocommit=True) as conn:
            for turn in range(10_000):
                if ended.is_set():
                    return
                some = draw.sample(keys, 50)
                value = f"by {seed} in {turn}"
                try:
                    with conn.transaction():
                        for key in some:
                            conn.execute(
                                "UPDATE customers SET website = %s WHERE customer_id = %s",
                                [value, key],
                            )
                        # Under the rows' locks, so the last to write here is the last there.
                        kept.update(dict.fromkeys(some, value))
                except psycopg.errors.DeadlockDetected:
                    continue

    threads = [threading.Thread(target=edit, args=(1,))]
    for thread in threads:
        thread.start()
    result = run(second, dsn, lanes=2, batch_rows=1000)
    ended.set()
    for thread in threads:
        thread.join()
    assert result.status == "COMPLETED"
    assert kept
    found = content(dsn)
    website, company = NAMES.index("website") - 1, NAMES.index("company") - 1
    after = {row["Customer Id"]: row for row in csv.DictReader(second.open(newline=""))}
    for key, value in kept.items():
        assert found[key][website] == value
    for key, row in after.items():
        assert found[key][company] == row["Company"] or not row["Company"]
        if key not in kept:
            assert found[key][website] == (row["Website"] or found[key][website])

"""A dry run tells the counts that the import then has, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from customer_panel import Stop, errors, import_customers
from customer_panel._native import generate
from customer_panel.imports import library
from customer_panel.imports.model import RUNNER_LOCK, Tuning
from support.compare import counts, digest

ROWS = 5000
BASE = {"rows": ROWS, "seed": 11, "duplicates": 0.05, "dirty": 0.03}
TABLES = (
    *("customers", "customer_history", "customer_totals", "sources", "imports"),
    *("import_lanes", "import_blocks", "import_parked", "import_rejects"),
)
# What people do between two nights.
BY_HAND = """
UPDATE customers SET city = 'Atlantis', phone1 = NULL WHERE id % 7 = 0;
UPDATE customers SET first_name = first_name || '!' WHERE many_rows AND id % 3 = 0;
UPDATE customers SET deleted_at = now() WHERE id % 11 = 0;
INSERT INTO customers (customer_id, first_name, city)
SELECT 'made-' || n, 'Handmade', CASE WHEN n % 2 = 0 THEN 'Here' END FROM generate_series(1, 20) n;
"""
MADE_TOO = "Customer Id,First Name,City,Company\n" + "".join(
    f"made-{n},{'Handmade' if n % 3 else 'Filed'},,Acme\nmade-{n},,,Acme {n % 2}\n"
    for n in range(1, 30)
)


@pytest.fixture(scope="module")
def nights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nights")
    made = {
        "first": BASE,
        "changed": BASE | {"changed": 0.2},
        "other duplicates": BASE | {"changed": 0.1, "duplicates": 0.2},
    }
    for name, options in made.items():
        generate(str(folder / name), **options)
    (folder / "hand_made").write_text(MADE_TOO)
    return {path.name: path for path in folder.iterdir()}


def snapshot(dsn: str) -> list[tuple[str] | None]:
    """Everything in every table, system columns too: a row written and taken back would show."""
    whole = "string_agg(md5(t::text || t.ctid || t.xmin), '' ORDER BY ctid)"
    with psycopg.connect(dsn) as conn:
        return [
            conn.execute(f"SELECT md5(coalesce({whole}, '')) FROM {table} AS t".encode()).fetchone()
            for table in TABLES
        ]


def dry_run_and_import(path: Path, dsn: str, **options):
    """A dry run, then the import: both results."""
    before = snapshot(dsn)
    predicted = import_customers(path, dsn, dry_run=True, **options)
    assert snapshot(dsn) == before
    return predicted, import_customers(path, dsn, **options)


@pytest.mark.parametrize("lanes", [1, 3])
def test_counts_of_every_night_are_those_of_the_import(nights, dsn, database, lanes):
    steps = ("first", "first", "changed", "changed", "by hand", "other duplicates", "hand_made")
    protected = 0
    for name in (*steps, "first", "hand_made"):
        if name == "by hand":
            database.execute(BY_HAND.encode())
            continue
        predicted, done = dry_run_and_import(nights[name], dsn, lanes=lanes, batch_rows=700)
        assert counts(predicted) == counts(done), name
        assert predicted.rows_processed == sum(
            getattr(predicted, f"rows_{outcome}")
            for outcome in ("inserted", "updated", "unchanged", "protected", "duplicate", "skipped")
        )
        assert (predicted.mapping, predicted.unmapped) == (done.mapping, done.unmapped)
        assert predicted.bytes_read == done.bytes_read == nights[name].stat().st_size
        protected += done.rows_protected
    assert protected


@pytest.mark.parametrize("blank", ["keep", "clear"])
def test_blanks_count_as_the_import_would_count_them(nights, dsn, tmp_path, blank):
    import_customers(nights["first"], dsn)
    header, *rows = nights["first"].read_text(errors="replace").splitlines()[:500]
    path = tmp_path / "blank.csv"
    path.write_text("\n".join([header, *(",".join(row.split(",")[:2]) for row in rows)]))
    predicted, done = dry_run_and_import(path, dsn, blank=blank)
    assert counts(predicted) == counts(done)
    assert bool(predicted.rows_updated) == (blank == "clear")


def test_another_feed_rewrites_nothing_that_is_equal(nights, dsn):
    import_customers(nights["first"], dsn)
    predicted, done = dry_run_and_import(nights["changed"], dsn, feed="crm")
    assert counts(predicted) == counts(done)
    predicted, done = dry_run_and_import(nights["first"], dsn, feed="crm")
    assert counts(predicted) == counts(done)


def test_memory_bound_only_means_more_passes(nights, dsn, monkeypatch):
    import_customers(nights["first"], dsn)
    predicted = import_customers(nights["changed"], dsn, dry_run=True)
    small = Tuning(lanes=2, memory_bytes=60_000)
    monkeypatch.setattr(library, "Tuning", lambda **_: small)
    assert counts(import_customers(nights["changed"], dsn, dry_run=True)) == counts(predicted)


def test_streams_can_be_rehearsed(nights, dsn):
    predicted = import_customers(iter([nights["first"].read_bytes()]), dsn, dry_run=True)
    assert counts(predicted) == counts(import_customers(nights["first"], dsn))


def test_it_needs_no_lock_and_no_job(nights, dsn, database):
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [RUNNER_LOCK])
        with pytest.raises(errors.AlreadyRunning):
            import_customers(nights["first"], dsn)
        predicted = import_customers(nights["first"], dsn, dry_run=True)
    assert predicted.job_id is None
    assert predicted.rows_inserted
    assert database.execute("SELECT count(*) FROM imports").fetchone() == (0,)


def test_a_stopped_dry_run_says_so(nights, dsn):
    stop = Stop()
    stop.ask()
    with pytest.raises(errors.Stopped, match="dry run"):
        import_customers(nights["first"], dsn, dry_run=True, stop=stop)


def test_table_stays_as_it_is(nights, dsn):
    import_customers(nights["first"], dsn)
    before = digest(dsn)
    import_customers(nights["changed"], dsn, dry_run=True)
    assert digest(dsn) == before

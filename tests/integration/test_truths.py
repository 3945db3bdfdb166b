"""One definition, many readers: migrations, schema.sql, customer.py, the SQL, the docs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from customer_panel.cli.main import COMMANDS
from customer_panel.customer import COLUMNS
from customer_panel.db.binaries import find_binaries
from customer_panel.settings import SETTINGS
from customer_panel.sql import statement, statements

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "migrations/schema.sql"
SQL = ROOT / "python/customer_panel/sql"


def dumped(dsn: str) -> str:
    """The schema as pg_dump writes it, without what differs between two dumps of the same."""
    command = [
        find_binaries().program("pg_dump"),
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        dsn,
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = (
        line for line in text.splitlines() if not re.match(r"(--|SET |SELECT pg_catalog|\\)", line)
    )
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"


def test_schema_sql_is_what_the_migrations_make(dsn):
    assert SCHEMA.read_text() == dumped(dsn), (
        "write it anew: python tests/integration/test_truths.py"
    )


def test_the_table_has_the_columns_of_the_customer(database):
    for table in ("customers", "import_parked"):
        found = dict(
            database.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0",
                (table,),
            ).fetchall()
        )
        for column in COLUMNS:
            assert found[column.name] == ("date" if column.kind == "date" else "text")


@pytest.mark.parametrize("place", range(1, len(COLUMNS)), ids=lambda place: COLUMNS[place].name)
def test_an_edit_of_any_column_is_noticed_by_the_database(database, place):
    """The trigger has a list of the columns of its own: a column that it lacks loses its edits."""
    column = COLUMNS[place]
    before, after = ("2021-01-16", "2021-01-17") if column.kind == "date" else ("old", "new")
    database.execute(
        f"INSERT INTO customers (customer_id, import_id, source_id, {column.name})"
        " VALUES ('c1', 1, 1, %s)",
        (before,),
    )
    database.execute(f"UPDATE customers SET {column.name} = %s", (after,))
    edited, base = database.execute("SELECT edited_fields, edit_base FROM customers").fetchone()
    assert edited == 1 << place
    assert base[place] == before
    history = database.execute("SELECT fields, old_values FROM customer_history").fetchall()
    assert [(fields, values[place]) for fields, values in history] == [(1 << place, before)]


def test_every_statement_has_its_sentence():
    for path in SQL.rglob("*.sql"):
        parts = re.split(r"^-- (\w+) --$", path.read_text(), flags=re.M)
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            assert body.lstrip().startswith("-- "), f"{path.name}: {name}"


def test_every_statement_is_used():
    code = "".join(path.read_text() for path in (ROOT / "python").rglob("*.py"))
    sql = "".join(path.read_text() for path in SQL.rglob("*.sql"))
    unused = [name for name in statements() if f'"{name}"' not in code and f"<{name}>" not in sql]
    assert not unused


@pytest.mark.parametrize("name", ["merge_changed", "insert_missing"])
def test_a_small_stage_is_merged_by_the_key(database, name):
    """A batch of a re-sync must not read the whole table."""
    database.execute(
        "INSERT INTO customers (customer_id, import_id, source_id, source_hash)"
        " SELECT md5(i::text), 1, 1, i FROM generate_series(1, 50000) AS i"
    )
    database.execute("ANALYZE customers")
    database.execute(statement("create_stage"))
    database.execute(
        "INSERT INTO stage (source_line, source_hash, clears, customer_id)"
        " SELECT i, -i, 0, md5(i::text) FROM generate_series(1, 300) AS i"
    )
    explained = database.execute(
        b"EXPLAIN " + statement(name), {"import_id": 2, "source_id": 1}
    ).fetchall()
    plan = "\n".join(row[0] for row in explained)
    assert "customers_pkey" in plan, plan
    assert "Seq Scan on customers" not in plan, plan


def test_commands_and_settings_are_documented():
    text = (ROOT / "docs/cli.md").read_text()
    assert all(f"`{command} " in text or f"`{command}`" in text for command in COMMANDS)
    assert all(f"`{setting.name}`" in text for setting in SETTINGS)


def test_links_of_the_documentation_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


if __name__ == "__main__":
    # `conftest.py` is not at hand here: a server of its own, migrated.
    import tempfile

    from customer_panel.db import embedded
    from customer_panel.db.migrate import migrate

    home = Path(tempfile.mkdtemp(prefix="cp-"))
    home.chmod(0o711)
    server = embedded.ensure_running(home)
    migrate(server.dsn)
    SCHEMA.write_text(dumped(server.dsn))
    embedded.release(server)

"""Our COPY streams are byte for byte what PostgreSQL sends for the same rows."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from customer_panel import _native
from customer_panel.db import query
from customer_panel.sql import statement
from support.compare import run


@pytest.fixture
def streams(monkeypatch) -> dict[str, list[bytes]]:
    """Every stream that goes into a COPY, by the name of its statement."""
    streams: dict[str, list[bytes]] = {}
    copy = query.copy_in

    def copied(conn: psycopg.Connection, name: str, pieces) -> None:
        stream = b"".join(pieces)
        streams.setdefault(name, []).append(stream)
        copy(conn, name, [stream])

    monkeypatch.setattr(query, "copy_in", copied)
    return streams


@pytest.fixture
def nights(tmp_path) -> list[Path]:
    common = {"rows": 1500, "seed": 6, "duplicates": 0.1, "dirty": 0.3, "about": True}
    paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
    _native.generate(str(paths[0]), **common)
    _native.generate(str(paths[1]), **common | {"changed": 0.5})
    return paths


def sent(conn: psycopg.Connection, select: str) -> bytes:
    with conn.cursor() as cursor, cursor.copy(select.encode()) as copy:
        return b"".join(bytes(piece) for piece in copy)


def columns(name: str) -> str:
    """The table and columns of one of our COPY statements."""
    text = statement(name).decode()
    return text[text.index("(") : text.index(")") + 1]


def through(conn: psycopg.Connection, name: str, table: str, stream: bytes) -> bytes:
    """The stream as PostgreSQL sends it after it went into a table like `table`."""
    conn.execute(f"CREATE TEMPORARY TABLE golden (LIKE {table} INCLUDING DEFAULTS)".encode())
    with conn.cursor() as cursor:
        with cursor.copy(f"COPY golden {columns(name)} FROM STDIN (FORMAT binary)") as copy:
            copy.write(stream)
        found = sent(conn, f"COPY golden {columns(name)} TO STDOUT (FORMAT binary)")
        cursor.execute("DROP TABLE golden")
    return found


def test_customers(nights, dsn, database, streams):
    """Of a first load without later rows, the table is still what was sent, in key order."""
    _native.generate(str(nights[0]), 1500, seed=6, dirty=0.3, about=True)
    run(nights[0], dsn, lanes=1)
    (stream,) = streams["copy_customers"]
    named = columns("copy_customers")[1:-1]
    select = f"COPY (SELECT {named} FROM customers ORDER BY customer_id) TO STDOUT (FORMAT binary)"
    assert stream == sent(database, select)


def test_rejects(nights, dsn, database, streams):
    run(nights[0], dsn, lanes=1)
    (stream,) = streams["copy_rejects"]
    named = columns("copy_rejects")[1:-1]
    select = (
        f"COPY (SELECT {named} FROM import_rejects ORDER BY byte_from) TO STDOUT (FORMAT binary)"
    )
    assert stream == sent(database, select)


def test_parked_and_changed_rows(nights, dsn, database, streams):
    run(nights[0], dsn, lanes=1)
    run(nights[1], dsn, lanes=1)
    with psycopg.connect(dsn) as conn:
        for stream in streams["copy_parked"]:
            assert through(conn, "copy_parked", "import_parked", stream) == stream
        conn.execute(statement("create_stage"))
        (stream,) = streams["copy_stage"]
        assert through(conn, "copy_stage", "stage", stream) == stream

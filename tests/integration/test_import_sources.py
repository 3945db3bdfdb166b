"""Sources that are no ordinary file of customers, and one of a single line of ten gigabytes."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import psycopg
import pytest

from customer_panel import _native, errors
from customer_panel.imports import import_customers
from support.compare import rejects
from support.databases import command, environment

LINE_BYTES = 10 << 30
MEMORY_LIMIT = 200 << 20  # issue: peak memory of the importing process


def test_a_line_of_ten_gigabytes_is_one_reject_and_exhausts_nothing(dsn, tmp_path):
    path = tmp_path / "line.csv"
    head, tail = b"id,city\n1,Rome\n2,", b"\n3,Oslo\n"
    with path.open("wb") as file:
        file.write(head)
        file.seek(LINE_BYTES, os.SEEK_CUR)
        file.write(tail)
    done = subprocess.run(
        command("import", str(path), "--json"),
        env=environment(DATABASE_URL=dsn),
        cwd=tmp_path,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 3, done.stderr.decode()
    result = json.loads(done.stdout)
    print(result["elapsedSec"], "s,", result["peakRssBytes"] >> 20, "MiB")
    assert (result["rowsProcessed"], result["rowsInserted"], result["rowsSkipped"]) == (3, 2, 1)
    assert result["peakRssBytes"] < MEMORY_LIMIT
    (reject,) = rejects(dsn, 1)
    assert (reject.line, reject.code) == (3, "record_over_limit")
    begin = head.rindex(b"\n") + 1
    assert (reject.byte_from, reject.byte_to) == (begin, len(head) + LINE_BYTES + 1)
    assert reject.raw == b"2," + bytes((64 << 10) - 2)


def test_what_is_no_file_of_customers_is_told_before_a_job_exists(dsn, tmp_path):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "blank.csv").write_bytes(b"\n\r\n\n")
    (tmp_path / "header.csv").write_bytes(b"id,city\n")
    (tmp_path / "open.csv").write_bytes(b"id,city")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nobody.csv").write_bytes(b"name,city\nAnn,Rome\n")
    (tmp_path / "twice.csv").write_bytes(b"id,ID,city\n1,2,Rome\n")
    wide = "id\u0000,x\n".encode("utf-16")
    (tmp_path / "utf16.csv").write_bytes(wide)
    cases: dict[str | Path, tuple[type[errors.CustomerPanelError], str]] = {
        "empty.csv": (errors.SourceEmpty, "is empty: it has no header line"),
        "blank.csv": (errors.SourceEmpty, "is empty: it has no header line"),
        "header.csv": (errors.SourceEmpty, "has a header and no rows"),
        "open.csv": (errors.SourceEmpty, "has a header and no rows"),
        "folder": (errors.NotAFile, "is a folder"),
        "fifo": (errors.NotAFile, "is not a regular file"),
        "missing.csv": (errors.SourceNotFound, "no such file"),
        "empty.csv/x": (errors.SourceNotFound, "no such file"),
        "a" * 300: (errors.SourceNotFound, "too long"),
        "nul\0byte": (errors.SourceNotFound, "not a path"),
        "nobody.csv": (errors.MappingError, "no column says who a customer is"),
        "twice.csv": (errors.MappingError, "both claim customerId"),
        "utf16.csv": (errors.MappingError, "UTF-8"),
    }
    for name, (kind, message) in cases.items():
        with pytest.raises(kind) as error:
            import_customers(f"{tmp_path}/{name}", dsn)
        assert message in error.value.message, name
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT count(*) FROM imports").fetchone() == (0,)


def test_a_stream_gives_the_same_table_as_its_file(small, databases, tmp_path):
    for name in ("first", "again"):
        scene = small[name]
        text = scene.path.read_bytes()
        pieces = [text[at : at + 777] for at in range(0, len(text), 777)]
        for source in (io.BytesIO(text), pieces, iter(pieces)):
            with databases.copy(scene.before) as dsn:
                assert import_customers(source, dsn).status == "COMPLETED"
                scene.check(dsn)


def test_a_stream_that_breaks_leaves_a_failed_job_and_the_next_import_is_free(dsn, tmp_path):
    path = tmp_path / "file.csv"
    _native.generate(str(path), 30_000, seed=1)
    text = path.read_bytes()

    def broken():
        yield text[: len(text) // 2]
        raise OSError("the wire is cut")

    with pytest.raises(errors.CustomerPanelError, match="the wire is cut"):
        import_customers(broken(), dsn, batch_rows=1000)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT status FROM imports").fetchall() == [("FAILED",)]
        (kept,) = conn.execute("SELECT count(*) FROM customers").fetchone()
        assert 0 < kept < 30_000
    assert import_customers([text], dsn).rows_unchanged == kept
    with psycopg.connect(dsn) as conn:
        there = conn.execute("SELECT count(*), count(DISTINCT customer_id) FROM customers")
        assert there.fetchone() == (30_000, 30_000)

"""Loads hash and flags of every identity in the database into the native map, once per pass, and
estimates the memory of that map.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg

from customer_panel._native import Known
from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.imports.engine.passes import Pass, Scan
from customer_panel.imports.sources import StreamSource
from customer_panel.sql import statement

ENTRY_BYTES = 25  # the map's memory for an identity, at most
PAGES = 1024  # 8 MiB of table, some 30,000 rows: a result of 1 MB
READERS = 2  # each keeps a core of the server busy; more readers would wait for each other
LAST_PAGE = 4294967295


class TableSize(NamedTuple):
    """Pages of `customers`, its rows as the planner estimates them and as `customer_totals` counts."""

    pages: int
    estimated: int
    counted: int


def table_size(conn: Connection) -> TableSize:
    return TableSize(*query.only(conn, "customer_pages"))


def database_seed(conn: Connection) -> int:
    """The seed of the hashes of identities."""
    return int(query.only(conn, "database_seed")[0])


def pass_count(conn: Connection, scan: Scan) -> int:
    """The number of passes, such that the map of each fits into the memory that it may use."""
    if isinstance(scan.source, StreamSource):
        return 1
    return max(1, -(-identity_count(conn, scan) * ENTRY_BYTES // scan.tuning.memory_bytes))


def identity_count(conn: Connection, scan: Scan) -> int:
    """An estimate of the identities: from the table, and from the file's size and first rows."""
    size = table_size(conn)
    record_bytes = max(scan.plan.average_record_bytes(scan.source.head), 1)
    rows = (scan.source.size_now() or 0) // record_bytes
    return int(max(size.estimated, size.counted, rows))


def load_known(conn: Connection, scan: Scan, this: Pass) -> Known:
    """The map of the identities of a pass: those in the database, and those its import has parked."""
    known = Known(
        this.seed,
        expected=identity_count(conn, scan) * len(this.lanes) // this.total,
        memory=scan.tuning.memory_bytes,
        lanes=this.total,
        first_lane=this.lanes[0].lane,
        lane_count=len(this.lanes),
    )
    _load(scan.sessions.lane, known, this.import_id)
    return known


def _load(connect: Callable[[], Connection], known: Known, import_id: int | None) -> None:
    """Reads under one snapshot: a row that moves to another page meanwhile is still read once."""
    with connect() as own:
        own.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        own.read_only = True
        pages = table_size(own).pages
        todo: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        starts = range(0, pages, PAGES)
        for start in starts:
            todo.put((start, LAST_PAGE if start == starts[-1] else start + PAGES))
        failures: list[BaseException] = []
        readers = []
        if len(starts) > 1:
            snapshot = query.only(own, "export_snapshot")[0]
            for _ in range(READERS - 1):
                reader = threading.Thread(
                    target=_read_in_parallel, args=(connect, snapshot, todo, known, failures)
                )
                reader.start()
                readers.append(reader)
        try:
            _read(own, todo, known)
        finally:
            for reader in readers:
                reader.join()
        if failures:
            raise failures[0]
        if import_id is not None:
            cursor = own.cursor(binary=True)
            cursor.execute(statement("parked_firsts"), {"import_id": import_id})
            ids, flags = _arrays(cursor, 2)
            known.load_flags(ids, flags)


def _read_in_parallel(
    connect: Callable[[], Connection],
    snapshot: str,
    todo: queue.SimpleQueue[tuple[int, int]],
    known: Known,
    failures: list[BaseException],
) -> None:
    try:
        with connect() as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            conn.read_only = True
            conn.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())
            _read(conn, todo, known)
    except BaseException as error:  # raised again by the thread that waits for this one
        failures.append(error)


def _read(conn: Connection, todo: queue.SimpleQueue[tuple[int, int]], known: Known) -> None:
    cursor = conn.cursor(binary=True)
    while True:
        try:
            start, end = todo.get_nowait()
        except queue.Empty:
            return
        cursor.execute(statement("known_hashes"), {"from": f"({start},0)", "to": f"({end},0)"})
        ids, hashes, flagged, flags = _arrays(cursor, 4)
        known.load_hashes(ids, hashes)
        known.load_flags(flagged, flags)


def _arrays(cursor: psycopg.Cursor[Any], count: int) -> list[bytes]:
    """The arrays of the only row as the server sent them: Rust parses them, so they need not become
    Python objects.
    """
    result = cursor.pgresult
    assert result is not None
    return [bytes(result.get_value(0, column) or b"") for column in range(count)]

"""Loads what the database holds of every identity into the native map, once per run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from customer_panel._native import Known
from customer_panel.imports.job import ledger
from customer_panel.sql import statement

Connection = psycopg.Connection[Any]
PAGES = 1024  # 8 MiB of table, some 30,000 rows: an answer of 1 MB
READERS = 2  # each keeps a core of the server busy; more would only wait for one another
LAST_PAGE = 4294967295


def load(connect: Callable[[], Connection], known: Known, import_id: int | None) -> None:
    """Fills `known` from `customers`, and with the identities whose first row `import_id` has
    parked.

    Reads under one snapshot: a customer that moves within the table meanwhile is still met once.
    """
    with connect() as first:
        first.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        first.read_only = True
        pages = ledger.one(first, "customer_pages")[0]
        todo: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        starts = range(0, pages, PAGES)
        for start in starts:
            todo.put((start, LAST_PAGE if start == starts[-1] else start + PAGES))
        failures: list[BaseException] = []
        readers = []
        if len(starts) > 1:
            snapshot = ledger.one(first, "export_snapshot")[0]
            for _ in range(READERS - 1):
                reader = threading.Thread(
                    target=_read_beside, args=(connect, snapshot, todo, known, failures)
                )
                reader.start()
                readers.append(reader)
        try:
            _read(first, todo, known)
        finally:
            for reader in readers:
                reader.join()
        if failures:
            raise failures[0]
        if import_id is not None:
            cursor = first.cursor(binary=True)
            cursor.execute(statement("parked_firsts"), {"import_id": import_id})
            ids, flags = _arrays(cursor, 2)
            known.load_flags(ids, flags)


def _read_beside(
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
    except BaseException as wrong:  # raised again by the thread that waits for this one
        failures.append(wrong)


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
    """The arrays of the only row as the server sent them: what is parsed in Rust need not become
    Python objects.
    """
    result = cursor.pgresult
    assert result is not None
    return [bytes(result.get_value(0, column) or b"") for column in range(count)]

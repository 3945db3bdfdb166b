"""The indexes on customer_id and e-mail: dropped before a first load, built when its rows are in.

Until then the map of identities and the checkpoints keep the rows unique. Building the unique key
proves that they are.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import psycopg
from psycopg import errors

from customer_panel.db import query
from customer_panel.db.connect import Connection
from customer_panel.imports.engine.merge import Merged, merge_hand_made
from customer_panel.imports.job import ledger
from customer_panel.imports.model import Claim
from customer_panel.sql import statement

KEY, EMAIL = "customers_pkey", "customers_email_idx"
BUILD = {
    KEY: "CREATE UNIQUE INDEX {concurrently} customers_pkey ON customers (customer_id)",
    EMAIL: "CREATE INDEX {concurrently} customers_email_idx ON customers (email)",
}
OURS = "customer-panel:import%"  # application_name of this import's sessions
LOCK_WAIT_MS = 20  # while an ACCESS EXCLUSIVE lock waits, all later sessions wait too
LOCK_PAUSE_S = 0.05  # between two tries, for the other sessions
LOCK_TRIES = 20  # 1.4 s; if the table is read for longer, the load keeps its indexes and is slower
LOOK_S = 0.05  # between two checks for writers that wait for a build; a batch takes longer


def drop(conn: Connection) -> bool:
    """Drops both indexes if there is no customer yet; returns whether it did.

    Part of the caller's transaction.
    """
    for _ in range(LOCK_TRIES):
        try:
            with conn.transaction():
                if not query.only(conn, "customers_is_empty")[0]:
                    return False
                conn.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}".encode())
                conn.execute(statement("lock_customers"))
                if not query.only(conn, "customers_is_empty")[0]:
                    return False
                conn.execute(statement("drop_keys"))
                return True
        except errors.LockNotAvailable:
            time.sleep(LOCK_PAUSE_S)
    return False


def are_complete(conn: Connection) -> bool:
    return not query.rows(conn, "missing_keys") and bool(query.only(conn, "has_primary_key")[0])


def build(
    connect: Callable[[], Connection], claim: Claim, settle: Callable[[Connection, Merged], None]
) -> None:
    """Builds those that are missing; can be killed at any point and called again.

    If a customer was made by hand meanwhile and the file has its identity too, the two are merged
    first, and `settle` counts that in the same transaction. Readers never wait for a build, and
    writers no longer than for a batch. Raises ClaimLost.
    """
    is_alone = True  # until another session wants to write
    while True:
        missing = _missing(connect)
        try:
            if is_alone:
                is_alone = _build_together(connect, claim, missing)
                if not is_alone:
                    continue
            else:
                for name in missing:
                    _build_beside_others(connect, claim, name)
        except errors.UniqueViolation:
            with connect() as conn, conn.transaction():
                ledger.hold_claim(conn, claim)
                folded = conn.execute(statement("fold_hand_made")).rowcount
                merged = merge_hand_made(conn, claim)
                if not merged.firsts and not folded:
                    raise
                settle(conn, merged)
            continue
        break
    with connect() as conn:
        _make_primary(conn)


def _missing(connect: Callable[[], Connection]) -> list[str]:
    with connect() as conn:
        missing = query.rows(conn, "missing_keys")
        for index in missing:
            if index["is_invalid"]:
                # Left by a CREATE INDEX CONCURRENTLY that was killed.
                conn.execute(f"DROP INDEX {index['name']}".encode())
    return [index["name"] for index in missing]


def _build_together(connect: Callable[[], Connection], claim: Claim, names: list[str]) -> bool:
    """Builds all at once, twice as fast as CONCURRENTLY; False if it was cancelled for a writer.

    While CREATE INDEX runs, other sessions can read the table and build indexes. Writers wait for
    all of the builds.
    """
    failures: list[BaseException] = []
    is_cancelled = False

    def build_one(conn: Connection, name: str) -> None:
        try:
            with conn:
                ledger.hold_claim(conn, claim)
                conn.execute(BUILD[name].format(concurrently="").encode())
        except BaseException as error:  # raised again by the thread that waits for this one
            failures.append(error)

    sessions = [connect() for _ in names]
    threads = [
        threading.Thread(target=build_one, args=pair) for pair in zip(sessions, names, strict=True)
    ]
    for thread in threads:
        thread.start()
    with connect() as conn:
        conn.autocommit = True
        while any(thread.is_alive() for thread in threads):
            if query.only(conn, "others_wait", ours=OURS)[0]:
                # Repeated while they wait: a cancel between two statements has no effect.
                is_cancelled = True
                for session in sessions:
                    with contextlib.suppress(psycopg.Error):
                        session.cancel_safe(timeout=1)
            for thread in threads:
                thread.join(LOOK_S)
    if is_cancelled and all(isinstance(error, errors.QueryCanceled) for error in failures):
        return False
    if failures:
        raise next(
            (error for error in failures if isinstance(error, errors.UniqueViolation)), failures[0]
        )
    return True


def _build_beside_others(connect: Callable[[], Connection], claim: Claim, name: str) -> None:
    with connect() as conn:
        ledger.hold_claim(conn, claim)
        conn.commit()
        conn.autocommit = True
        try:
            conn.execute(BUILD[name].format(concurrently="CONCURRENTLY").encode())
        except BaseException:
            if not conn.closed:
                conn.execute(f"DROP INDEX IF EXISTS {name}".encode())
            raise


def _make_primary(conn: Connection) -> None:
    """Makes the unique index the primary key. That takes a moment, under a lock that no other
    session may hold.
    """
    while not query.only(conn, "has_primary_key")[0]:
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}".encode())
                conn.execute(
                    b"ALTER TABLE customers ADD CONSTRAINT customers_pkey"
                    b" PRIMARY KEY USING INDEX customers_pkey"
                )
        except errors.LockNotAvailable:
            # Another session reads for long. While we waited for it, all later sessions would too.
            time.sleep(LOCK_PAUSE_S)

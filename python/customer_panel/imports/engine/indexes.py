"""The indexes on customer_id and e-mail: left away for a first load, built when its rows are in.

Until then the map of identities and the checkpoints keep the rows unique, and building the key
proves it.
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
LOCK_WAIT_MS = 20  # an ACCESS EXCLUSIVE lock that waits holds up everybody behind it
LOCK_PAUSE_S = 0.05  # others have their turn
LOCK_TRIES = 20  # more than two seconds of somebody's reading are worth the slower load
LOOK_S = 0.05  # how often a build looks for writers that wait for it; a batch takes longer


def drop(conn: Connection) -> bool:
    """Drops both indexes if there is no customer yet; whether it did.

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
    """Builds what is missing of the two; can be killed at any point and called again.

    A customer made by hand meanwhile, whose identity the file brought too, is merged first,
    and `settle` counts it in the same transaction. Readers never wait for it, and a writer no
    longer than a batch takes. Raises ClaimLost.
    """
    is_alone = True  # until somebody else wants to write
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
                # Left by a CREATE INDEX CONCURRENTLY that did not end.
                conn.execute(f"DROP INDEX {index['name']}".encode())
    return [index["name"] for index in missing]


def _build_together(connect: Callable[[], Connection], claim: Claim, names: list[str]) -> bool:
    """Builds all at once, twice as fast as beside others; False if it gave way to a writer.

    CREATE INDEX lets others read the table, and others of its kind build beside it; who wants to
    write waits for all of them.
    """
    failures: list[BaseException] = []
    has_given_way = False

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
                # Again as long as they wait: a session between two statements hears no cancel.
                has_given_way = True
                for session in sessions:
                    with contextlib.suppress(psycopg.Error):
                        session.cancel_safe(timeout=1)
            for thread in threads:
                thread.join(LOOK_S)
    if has_given_way and all(isinstance(error, errors.QueryCanceled) for error in failures):
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
    """The unique index becomes the primary key: a moment under a lock that everybody else must have
    left.
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
            # Somebody reads for long; waiting in line would stop all who come after us.
            time.sleep(LOCK_PAUSE_S)

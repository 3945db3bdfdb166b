"""The indexes on customer_id and e-mail: left away for a first load, built when its rows are in.

Until then the map of identities and the checkpoints keep the rows unique, and building the key
proves it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors

from customer_panel.imports import ledger
from customer_panel.imports.apply import Merged, merge_twins
from customer_panel.imports.model import Claim
from customer_panel.sql import statement

Connection = psycopg.Connection[Any]
KEY, EMAIL = "customers_pkey", "customers_email_idx"
BUILD = {
    KEY: "CREATE UNIQUE INDEX {concurrently} customers_pkey ON customers (customer_id)",
    EMAIL: "CREATE INDEX {concurrently} customers_email_idx ON customers (email)",
}
OURS = "customer-panel:import%"  # application_name of this import's sessions
LOCK_WAIT_MS = 2000  # an ACCESS EXCLUSIVE lock that waits holds up everybody behind it


def defer(conn: Connection) -> bool:
    """Drops both indexes if there is no customer yet; whether it did.

    Part of the caller's transaction.
    """
    try:
        with conn.transaction():
            conn.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}".encode())
            conn.execute(statement("lock_customers"))
            if not ledger.one(conn, "customers_is_empty")[0]:
                return False
            conn.execute(statement("drop_keys"))
            return True
    except errors.LockNotAvailable:
        return False


def are_complete(conn: Connection) -> bool:
    return not ledger.rows(conn, "missing_keys") and bool(ledger.one(conn, "has_primary_key")[0])


def build(
    connect: Callable[[], Connection], claim: Claim, settle: Callable[[Connection, Merged], None]
) -> None:
    """Builds what is missing of the two; can be killed at any point and called again.

    A customer made by hand meanwhile, whose identity the file brought too, is merged first,
    and `settle` counts it in the same transaction. Raises ClaimLost.
    """
    while True:
        with connect() as conn:
            missing = ledger.rows(conn, "missing_keys")
            is_alone = not ledger.one(conn, "other_sessions", ours=OURS)[0]
            conn.commit()
            for index in missing:
                if index["is_invalid"]:
                    # Left by a CREATE INDEX CONCURRENTLY that did not end.
                    conn.execute(f"DROP INDEX {index['name']}".encode())
                    conn.commit()
        try:
            _build_all(connect, claim, [index["name"] for index in missing], is_alone)
        except errors.UniqueViolation:
            with connect() as conn, conn.transaction():
                ledger.one(conn, "hold_claim", import_id=claim.import_id, epoch=claim.epoch)
                folded = conn.execute(statement("fold_doubles")).rowcount
                merged = merge_twins(conn, claim)
                if not merged.firsts and not folded:
                    raise
                settle(conn, merged)
            continue
        break
    with connect() as conn:
        _make_primary(conn)


def _build_all(
    connect: Callable[[], Connection], claim: Claim, names: list[str], is_alone: bool
) -> None:
    failures: list[BaseException] = []

    def build_one(name: str) -> None:
        try:
            with connect() as conn:
                _build_one(conn, claim, name, is_alone)
        except BaseException as wrong:  # raised again by the thread that waits for this one
            failures.append(wrong)

    # CREATE INDEX lets others of its kind read the table beside it; CONCURRENTLY waits for all of
    # them.
    if is_alone:
        threads = [threading.Thread(target=build_one, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        for name in names:
            build_one(name)
    if failures:
        raise next(
            (wrong for wrong in failures if isinstance(wrong, errors.UniqueViolation)), failures[0]
        )


def _build_one(conn: Connection, claim: Claim, name: str, is_alone: bool) -> None:
    command = BUILD[name].format(concurrently="" if is_alone else "CONCURRENTLY").encode()
    held = {"import_id": claim.import_id, "epoch": claim.epoch}
    ledger.one(conn, "hold_claim", **held)
    if is_alone:
        conn.execute(command)
        conn.commit()
        return
    conn.commit()
    conn.autocommit = True
    try:
        conn.execute(command)
    except BaseException:
        if not conn.closed:
            conn.execute(f"DROP INDEX IF EXISTS {name}".encode())
        raise


def _make_primary(conn: Connection) -> None:
    """The unique index becomes the primary key: a moment under a lock that everybody else must have
    left.
    """
    while not ledger.one(conn, "has_primary_key")[0]:
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}".encode())
                conn.execute(
                    b"ALTER TABLE customers ADD CONSTRAINT customers_pkey"
                    b" PRIMARY KEY USING INDEX customers_pkey"
                )
        except errors.LockNotAvailable:
            # Somebody reads for long; waiting in line would stop all who come after us.
            time.sleep(0.2)

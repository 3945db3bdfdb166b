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
from customer_panel.errors import NotAllowed
from customer_panel.imports.engine.merge import Merged, merge_hand_made, repeated, stand_aside
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


# What the server says when it keeps an index: something needs it, the role does not own the table, the
# table is part of another one, an event trigger of the user refuses.
KEPT = (
    errors.DependentObjectsStillExist,
    errors.InsufficientPrivilege,
    errors.InvalidTableDefinition,
    errors.ObjectNotInPrerequisiteState,
    errors.RaiseException,
    errors.WrongObjectType,
)


def drop(conn: Connection) -> bool:
    """Drops both indexes if there is no customer yet and nothing of the user's needs them; returns
    whether it did.

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
                if query.only(conn, "keys_are_used")[0]:
                    return False
                conn.execute(statement("drop_keys"))
                return True
        except KEPT:
            return False
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
    try:
        _build_missing(connect, claim, settle)
        with connect() as conn:
            conn.autocommit = True
            _make_primary(conn, claim)
    except errors.InsufficientPrivilege as error:
        raise NotAllowed(
            f"the indexes of customers have to be built: {error.diag.message_primary}"
        ) from None


def _build_missing(
    connect: Callable[[], Connection], claim: Claim, settle: Callable[[Connection, Merged], None]
) -> None:
    is_alone = True  # until another session wants to write
    while missing := _missing(connect, claim):
        try:
            if is_alone:
                is_alone = _build_together(connect, claim, missing)
            else:
                for name in missing:
                    _build_beside_others(connect, claim, name)
        except errors.UniqueViolation:
            # First without the index that is not valid: it would check the rows that are merged.
            _missing(connect, claim)
            with connect() as conn:
                conn.autocommit = True
                if not repeated(lambda: _merge_hand_made(conn, claim, settle)):
                    raise
        except errors.DeadlockDetected:
            # With somebody who has locks of the table and waits for others. The work begins again.
            time.sleep(LOCK_PAUSE_S)


def _merge_hand_made(
    conn: Connection, claim: Claim, settle: Callable[[Connection, Merged], None]
) -> bool:
    """Merges rows of an identity that a person has made a customer of; False if there is none."""
    with conn.transaction():
        ledger.hold_claim(conn, claim)
        stand_aside(conn)
        folded = conn.execute(statement("fold_hand_made")).rowcount
        merged = merge_hand_made(conn, claim)
        if not merged.firsts and not folded:
            return False
        settle(conn, merged)
    return True


def _missing(connect: Callable[[], Connection], claim: Claim) -> list[str]:
    """The names of the indexes to build. Those that are not valid are dropped: a CREATE INDEX
    CONCURRENTLY that was killed leaves them.
    """
    with connect() as conn:
        conn.autocommit = True
        while True:
            missing = query.rows(conn, "missing_keys")
            if not any(index["is_invalid"] for index in missing):
                return [index["name"] for index in missing]
            _drop_invalid(conn, claim)


def _drop_invalid(conn: Connection, claim: Claim) -> None:
    """Drops the indexes that are not valid, unless another session holds the table now.

    Raises ClaimLost.
    """
    try:
        with conn.transaction():
            ledger.hold_claim(conn, claim)
            conn.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}".encode())
            # Read under the lock: a build of a runner that died may have just been completed.
            conn.execute(statement("lock_customers"))
            for index in query.rows(conn, "missing_keys"):
                if index["is_invalid"]:
                    conn.execute(f"DROP INDEX {index['name']}".encode())
    except errors.LockNotAvailable:
        time.sleep(LOCK_PAUSE_S)


def _build_together(connect: Callable[[], Connection], claim: Claim, names: list[str]) -> bool:
    """Builds all at once, twice as fast as CONCURRENTLY; False if it was cancelled for a writer.

    While CREATE INDEX runs, other sessions can read the table and build indexes. Writers wait for
    all of the builds.
    """
    failures: list[BaseException] = []

    def build_one(conn: Connection, name: str) -> None:
        try:
            with conn:
                ledger.hold_claim(conn, claim)
                conn.execute(BUILD[name].format(concurrently="").encode())
        except BaseException as error:  # raised again by the thread that waits for this one
            failures.append(error)

    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(connect())
        watch.autocommit = True
        sessions = [stack.enter_context(contextlib.closing(connect())) for _ in names]
        threads = [
            threading.Thread(target=build_one, args=pair)
            for pair in zip(sessions, names, strict=True)
        ]
        try:
            for thread in threads:
                thread.start()
            is_cancelled = _watch(watch, threads, sessions)
        finally:
            # After an error too: nothing of this import runs on when it has failed.
            _join(threads, sessions)
    if is_cancelled and all(isinstance(error, errors.QueryCanceled) for error in failures):
        return False
    if failures:
        raise next(
            (error for error in failures if isinstance(error, errors.UniqueViolation)), failures[0]
        )
    return True


def _watch(conn: Connection, threads: list[threading.Thread], sessions: list[Connection]) -> bool:
    """Returns when the builds are over; whether they were cancelled because somebody waits."""
    is_cancelled = False
    while any(thread.is_alive() for thread in threads):
        if query.only(conn, "others_wait", ours=OURS)[0]:
            # Repeated while they wait: a cancel between two statements has no effect.
            is_cancelled = True
            _cancel(sessions)
        for thread in threads:
            thread.join(LOOK_S)
    return is_cancelled


def _join(threads: list[threading.Thread], sessions: list[Connection]) -> None:
    while any(thread.is_alive() for thread in threads):
        _cancel(sessions)
        for thread in filter(threading.Thread.is_alive, threads):
            thread.join(LOOK_S)


def _cancel(sessions: list[Connection]) -> None:
    for session in sessions:
        with contextlib.suppress(psycopg.Error):
            session.cancel_safe(timeout=1)


def _build_beside_others(connect: Callable[[], Connection], claim: Claim, name: str) -> None:
    """Builds one index CONCURRENTLY. If that fails, an index may be left that is not valid."""
    with connect() as conn:
        ledger.hold_claim(conn, claim)
        conn.commit()
        conn.autocommit = True
        conn.execute(BUILD[name].format(concurrently="CONCURRENTLY").encode())


def _make_primary(conn: Connection, claim: Claim) -> None:
    """Makes the unique index the primary key. That takes a moment, under a lock that no other
    session may hold. Raises ClaimLost.
    """
    while not query.only(conn, "has_primary_key")[0]:
        try:
            with conn.transaction():
                ledger.hold_claim(conn, claim)
                conn.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}".encode())
                conn.execute(
                    b"ALTER TABLE customers ADD CONSTRAINT customers_pkey"
                    b" PRIMARY KEY USING INDEX customers_pkey"
                )
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            # Another session reads for long. While we waited for it, all later sessions would too.
            time.sleep(LOCK_PAUSE_S)

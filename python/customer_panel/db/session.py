"""The settings of our sessions: pinned when a session begins, whatever the server, the database or
the role say. A time limit that suits a web application would end an import, another isolation level
or search path would change what a statement does.

The user's own values stay for what only places or speeds up: tablespaces, memory, the planner.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg

from customer_panel.errors import TriggersOff

PINNED: dict[str, str] = {
    # Time limits, first: the other settings must not run into one.
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    # Transactions.
    "default_transaction_isolation": "read committed",  # a merge must see an edit that it waited for
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    # What names mean, and which rows are there. A policy that hides rows is an error, not a gap.
    "search_path": "public",
    "row_security": "off",
    "default_table_access_method": "heap",  # known rows are read by ranges of pages
    # How values are written and read. History and edit bases hold dates as text.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # An error that is expected, such as a customer that somebody else creates at the same time, must
    # not end the session.
    "exit_on_error": "off",
    "client_min_messages": "warning",
    "plan_cache_mode": "auto",
    "jit": "off",  # our statements handle a batch or a page: compiling costs more than running them
    # A role for which it is on would change customers as an import does: without a trace.
    "customer_panel.import": "off",
}
PROBE = (
    b"BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0;"
    b" SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(),"
    b" pg_catalog.current_setting('session_replication_role'); COMMIT"
)
ROUNDS = 3  # a pooler hands out its servers in turns, or the one that was used last


class Server(NamedTuple):
    """What the server says of a session: the number of its process, and whether it only replays the
    changes of another server.
    """

    process: int
    is_standby: bool


def pins(own: Mapping[str, str], options: str = "", *, is_local: bool = False) -> bytes:
    """The statements that pin the settings, and `own` ones instead or besides.

    options: those of the address. A search path in them says where the tables are.
    is_local: for the running transaction only.
    """
    settings = {**PINNED, **own}
    if path := re.search(r"(?:-c\s*|--)search_path=((?:\\.|\S)+)", options):
        settings["search_path"] = re.sub(r"\\(.)", r"\1", path[1])
    verb = "SET LOCAL" if is_local else "SET"
    return "; ".join(
        f"{verb} {name} TO {_value(name, value)}" for name, value in settings.items()
    ).encode()


def _value(name: str, value: str) -> str:
    # A quoted list would be one schema.
    parts = value.split(",") if name == "search_path" else [value]
    return ", ".join("'" + part.strip().strip('"').replace("'", "''") + "'" for part in parts)


def probe(conn: psycopg.Connection[Any]) -> Server:
    """Asks the server of an autocommit session. Changes nothing there: other clients of a pooler may
    share it. Raises TriggersOff.
    """
    cursor = conn.execute(PROBE)
    cursor.set_result(-2)
    return _server(cursor.fetchone())


async def probe_async(conn: psycopg.AsyncConnection[Any]) -> Server:
    """As `probe`."""
    cursor = await conn.execute(PROBE)
    await cursor.set_result(-2)
    return _server(await cursor.fetchone())


def _server(row: Any) -> Server:
    process, is_standby, role = row
    if role != "origin":
        raise TriggersOff(
            f"session_replication_role is {role}: the triggers that keep what people edit are off"
        )
    return Server(process, is_standby)


def is_shared(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """Whether two autocommit sessions are given the same server process, or one of them several: the
    address is that of a transaction pooler, where nothing that belongs to a session stays.
    """
    seen: list[set[int]] = [{probe(conn).process for _ in range(ROUNDS)} for conn in (one, other)]
    return bool(seen[0] & seen[1]) or any(len(processes) > 1 for processes in seen)

"""Roles and databases with settings of their own, as the administrator of a server may make them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from customer_panel.db.session import PINNED

_numbers = itertools.count(1)


@contextlib.contextmanager
def role(dsn: str, *, owns: bool = True, rights: str = "") -> Iterator[str]:
    """The address of `dsn` for a role that is no superuser; by default it may do what owners may."""
    user = f"role_{next(_numbers)}"
    name = sql.Identifier(user)
    with psycopg.connect(admin_of(dsn), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN " + rights).format(name))
        try:
            if owns:
                admin.execute(sql.SQL("GRANT postgres TO {}").format(name))
            yield dsn.replace("//postgres@", f"//{user}@")
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(name))


def set_for(dsn: str, scope: str, **settings: str) -> None:
    """Settings of all later sessions of the `scope` of this address: "ROLE" or "DATABASE"."""
    for name, value in settings.items():
        # A list in quotes would be one name.
        given = sql.SQL(value) if name == "search_path" else sql.Literal(value)
        alter(dsn, scope, sql.SQL("SET {} TO {}").format(sql.Identifier(*name.split(".")), given))


def reset(dsn: str, scope: str) -> None:
    """Without the settings that `set_for` has made."""
    alter(dsn, scope, sql.SQL("RESET ALL"))


def alter(dsn: str, scope: str, what: sql.Composable) -> None:
    """ALTER of the role or the database of this address."""
    parts = conninfo_to_dict(dsn)
    name = {"ROLE": parts["user"], "DATABASE": parts["dbname"]}[scope]
    with psycopg.connect(admin_of(dsn), autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER {} {} {}").format(sql.SQL(scope), sql.Identifier(str(name)), what)
        )


def admin_of(dsn: str) -> str:
    """The same database, for the superuser, whose sessions have no setting of role and database."""
    head, at, tail = dsn.partition("@")
    options = " ".join(f"-c {name}=" + value.replace(" ", "\\ ") for name, value in PINNED.items())
    return f"{head.partition('//')[0]}//postgres{at}{tail}&options={quote(options, safe='')}"

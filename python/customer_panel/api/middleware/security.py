"""Who may call: keys and their scopes, tickets, names of this server, origins of web pages.

This file only decides; guard.py and middleware.py write the answers.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from datetime import datetime

from customer_panel.db.pool import Pool, connection
from customer_panel.settings import ApiKey, Settings
from customer_panel.sql import statement

TICKET_S = 30  # for a page to open its stream; it takes milliseconds
TICKET_BYTES = 24
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
# Decisions kept, of Host headers and of origins each; further ones are made for every request.
REMEMBERED = 256

Header = tuple[bytes, bytes]


# -- keys -----------------------------------------------------------------------------------------


class Keys:
    """The keys that callers may present."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        """Whether callers need one at all."""
        return bool(self._keys)

    def scopes(self, secret: str) -> frozenset[str] | None:
        """What `secret` allows; None if it is no key. The time it takes tells nothing about the keys."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key.scopes
        return found


# -- tickets --------------------------------------------------------------------------------------


class Tickets:
    """One-time replacements for a key, for browsers: an EventSource cannot send headers.

    The database holds their hashes, so each process redeems what any other has issued.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def issue(self) -> tuple[str, datetime]:
        """A ticket, and when it expires. Raises psycopg.Error."""
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        async with connection(self._pool) as conn:
            cursor = await conn.execute(
                statement("issue_ticket"), {"hash": _hash(ticket), "seconds": TICKET_S}
            )
            row = await cursor.fetchone()
        assert row is not None
        return ticket, row[0]

    async def redeem(self, ticket: str) -> bool:
        """Whether it was valid; it is not any more. Raises psycopg.Error."""
        async with connection(self._pool) as conn:
            cursor = await conn.execute(statement("redeem_ticket"), {"hash": _hash(ticket)})
            row = await cursor.fetchone()
        return row is not None and bool(row[0])


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).digest()


# -- names of this server -------------------------------------------------------------------------

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:@/\s]+))(?::([0-9]{1,5}))?")


class Hosts:
    """The names that requests may call this server by.

    In a DNS rebinding attack the name of the attacker's page resolves to this machine: its requests
    carry that name.
    """

    def __init__(self, settings: Settings) -> None:
        names = settings.allowed_hosts or (settings.host, socket.gethostname())
        # The loopback names cannot resolve to anything else, and health checks use them.
        self._names = {name.lower() for name in (*LOOPBACK, *names)}
        self._is_any = "*" in self._names
        # DNS rebinding needs a name, so an address is safe; a server that listens on all addresses
        # has no list of them.
        self._takes_addresses = not settings.allowed_hosts and settings.host in ANY_ADDRESS
        self._decided: dict[bytes, bool] = {}

    def allow(self, header: bytes) -> bool:
        """Whether a Host header names this server."""
        is_allowed = self._decided.get(header)
        if is_allowed is None:
            is_allowed = self._names_us(header)
            if len(self._decided) < REMEMBERED:
                self._decided[header] = is_allowed
        return is_allowed

    def _names_us(self, header: bytes) -> bool:
        found = _HOST.fullmatch(header.decode("latin-1").lower())
        if found is None:
            return False
        name = found[1] or found[2].removesuffix(".")
        if self._is_any or name in self._names:
            return True
        if self._takes_addresses:
            try:
                ipaddress.ip_address(name)
            except ValueError:
                return False
            return True
        return False


# -- origins of pages -----------------------------------------------------------------------------

ALLOWED_METHODS = b"GET, HEAD, POST, PATCH, DELETE, OPTIONS"
ALLOWED_HEADERS = (
    b"content-type, authorization, if-match, idempotency-key, last-event-id, x-trace-id"
)
EXPOSED_HEADERS = b"etag, x-trace-id, retry-after, location"
PREFLIGHT_S = b"600"  # how long a browser may keep the answer


class Origins:
    """The origins whose pages may call, and the CORS headers for their browsers."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._is_any = "*" in allowed
        patterns = [
            re.escape(origin.lower()).replace(r":\*", r"(?::[0-9]{1,5})?") for origin in allowed
        ]
        self._pattern = re.compile("|".join(patterns) or r"(?!)")
        self._decided: dict[bytes, tuple[Header, ...]] = {}

    def headers(self, origin: bytes) -> tuple[Header, ...]:
        """The CORS headers of an answer to a page of `origin`; none if it may not call."""
        found = self._decided.get(origin)
        if found is None:
            found = self._headers(origin)
            if len(self._decided) < REMEMBERED:
                self._decided[origin] = found
        return found

    def _headers(self, origin: bytes) -> tuple[Header, ...]:
        if not self._is_any and not self._pattern.fullmatch(origin.decode("latin-1")):
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED_HEADERS),
        )

    def preflight(self, origin: bytes) -> list[Header]:
        """The other headers of the answer to a preflight request."""
        vary = b"origin, access-control-request-method, access-control-request-headers"
        headers: list[Header] = [(b"vary", vary)]
        if self.headers(origin):
            headers += [
                (b"access-control-allow-methods", ALLOWED_METHODS),
                (b"access-control-allow-headers", ALLOWED_HEADERS),
                (b"access-control-max-age", PREFLIGHT_S),
            ]
        return headers

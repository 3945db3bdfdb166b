"""The settings: read once, checked at once, frozen.

Every setting is an environment variable, or a line of the `.env` in the working folder; the
environment wins. A value that cannot be used stops the command before it changes anything. So does
a CP_ name that is unknown: most often it is a misspelled one.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

from customer_panel.errors import SettingsError
from customer_panel.redaction import redacted

MEMORY_BYTES = 512 << 20  # enough for 20 million identities of about 20 bytes each
BATCH_ROWS = 200_000  # more rows a batch cost memory and save no time
HEARTBEAT_MS = 15_000  # below the 30 s after which common proxies drop a silent stream
DAY_S = 86_400
STREAMS = 500  # an idle one costs its socket and some 30 KiB
LOCAL_ORIGINS = ("http://localhost:*", "http://127.0.0.1:*")  # a frontend under development
SCOPES = ("read", "write", "import")


class ApiKey(msgspec.Struct, frozen=True):
    """A key of API clients: its hash, and what it allows."""

    digest: bytes  # SHA-256; the key itself is not kept
    scopes: frozenset[str]

    def __str__(self) -> str:
        return f"***:{'+'.join(scope for scope in SCOPES if scope in self.scopes)}"

    __repr__ = __str__


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The values of all settings. `repr` shows no password."""

    database_url: str | None = None
    direct_url: str | None = None
    home: Path = Path()
    pg_bin: Path | None = None
    memory: int = MEMORY_BYTES
    csv_path: str | None = None
    host: str = "127.0.0.1"
    port: int = 3000
    batch_rows: int = BATCH_ROWS
    settle_s: float = 0
    total_rows: int | None = None
    progress_every_ms: int = 1000
    recent_limit: int = 20
    heartbeat_ms: int = HEARTBEAT_MS
    max_streams: int = STREAMS
    cors_origins: tuple[str, ...] = LOCAL_ORIGINS
    import_roots: tuple[Path, ...] = ()
    api_keys: tuple[ApiKey, ...] = ()
    allow_no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, env: Mapping[str, str] | None = None, dotenv: str | os.PathLike[str] = ".env"
    ) -> Settings:
        """The settings of `env` (default: this process's), completed by the file `dotenv`.

        Raises SettingsError, naming the setting, for a value that cannot be used or a CP_ name
        that is unknown. An empty value counts as not set.
        """
        given = {**_read_dotenv(Path(dotenv)), **(os.environ if env is None else env)}
        known = {setting.name for setting in SETTINGS}
        for name in sorted(given):
            if name.startswith("CP_") and name not in known:
                raise SettingsError(f"unknown setting {name}{_did_you_mean(name, known)}")
        values: dict[str, Any] = {"home": default_home()}
        for setting in SETTINGS:
            text = given.get(setting.name, "").strip()
            if text:
                try:
                    values[setting.field] = setting.parse(text)
                except ValueError as error:
                    raise SettingsError(f"{setting.name}: {error}") from None
        return cls(**values)

    def shown(self) -> Iterator[tuple[str, str]]:
        """(name, value) of every setting, without passwords."""
        for setting in SETTINGS:
            value = getattr(self, setting.field)
            if isinstance(value, tuple):
                separator = os.pathsep if setting.parse is _paths else ","
                value = separator.join(map(str, value)) or None
            elif isinstance(value, bool):
                value = int(value)
            yield setting.name, "not set" if value is None else redacted(str(value))

    def roots(self) -> tuple[Path, ...]:
        """The folders that imports over HTTP may read: IMPORT_ROOTS, else the folder of CSV_PATH,
        else `data` in the working folder."""
        if self.import_roots:
            return self.import_roots
        if self.csv_path is not None:
            return (_path(self.csv_path).parent,)
        return (Path.cwd() / "data",)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value}' for name, value in self.shown())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self.shown())


class Setting(NamedTuple):
    """A setting. `load`, `shown`, the documentation and a test read the table of all."""

    name: str
    field: str
    parse: Callable[[str], Any]
    meaning: str


def default_home() -> Path:
    """The platform's folder for a user's application files."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "customer-panel"
    base = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative value is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".local/share") / "customer-panel"


# -- parsing: each function returns the value, or raises ValueError that says what is accepted ----


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(?:\.[0-9]{1,3})?", text) or float(text) > DAY_S:
        raise ValueError(f"{text!r} is not a number of seconds from 0 to {DAY_S}")
    return float(text) if "." in text else int(text)


def parse_bytes(text: str) -> int:
    """A size with an optional suffix: k, M, G and T are powers of 1024, as are kB, MiB and so on."""
    found = re.fullmatch(r"([0-9]{1,15})\s*([kmgt]?)(?:i?b)?", text, flags=re.I)
    if not found:
        raise ValueError(f"{text!r} is not a size such as 512MiB or 2G")
    return int(found[1]) << (10 * " kmgt".index(found[2].lower() or " "))


def _memory(text: str) -> int:
    size = parse_bytes(text)
    if not 16 << 20 <= size <= 1 << 40:
        raise ValueError(f"{text!r} is not a size from 16MiB to 1TiB")
    return size


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(_path(part) for part in text.split(os.pathsep) if part)


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return text == "1"


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"  # of a host, or its IPv4 address
_V6 = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"


def _host(text: str) -> str:
    if not re.fullmatch(rf"{_NAME}|{_V6}", text):
        raise ValueError(f"{text!r} is not a host name or an address")
    return text


def _hosts(text: str) -> tuple[str, ...]:
    for name in _parts(text):
        if not re.fullmatch(rf"{_NAME}|\[?{_V6}\]?|\*", name):
            raise ValueError(
                f"{name!r} is not a host name, an address or *; ports do not belong here"
            )
    return tuple(name.strip("[]").lower() for name in _parts(text))


def _origins(text: str) -> tuple[str, ...]:
    """Origins as a browser sends them; `*` as a port means any port, `*` alone any origin."""
    for origin in _parts(text):
        known = rf"[a-z][a-z0-9+.-]*://(?:{_NAME}|\[{_V6}\])(?::(?:[0-9]{{1,5}}|\*))?|\*"
        if not re.fullmatch(known, origin):
            raise ValueError(f"{origin!r} is not an origin such as https://panel.example:8080")
    return tuple(_parts(text))


def _keys(text: str) -> tuple[ApiKey, ...]:
    """Keys as SECRET or SECRET:scope+scope. Errors do not quote a secret."""
    found: list[ApiKey] = []
    for number, part in enumerate(_parts(text), 1):
        secret, colon, names = part.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,}", secret):
            raise ValueError(f"key {number} is not of 16 or more of A-Z a-z 0-9 . _ ~ + / = -")
        scopes = frozenset(names.split("+")) if colon else frozenset(SCOPES)
        if not scopes <= set(SCOPES):
            raise ValueError(f"key {number}: scopes are {', '.join(SCOPES)}, joined by +")
        digest = hashlib.sha256(secret.encode()).digest()
        if any(key.digest == digest for key in found):
            raise ValueError(f"key {number} is there twice")
        found.append(ApiKey(digest, scopes))
    return tuple(found)


# Parameters that Prisma puts into a DATABASE_URL and libpq refuses. They are dropped; `schema` is
# translated. The mark of a pooler stays until an address is used.
_PRISMA_ONLY = (
    *("connection_limit", "pool_timeout", "socket_timeout", "sslaccept", "sslidentity"),
    *("statement_cache_size", "single_use_connections"),
)
_POOLER = ("pgbouncer", "true")


def parse_dsn(text: str) -> str:
    """A libpq connection string; a URL written for Prisma is accepted too, and keeps its
    `pgbouncer=true`. Raises ValueError.
    """
    if re.match(r"[a-z_]+\s*=", text):
        return text
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("not a connection string such as postgresql://user@host:5432/name")
    pairs = _query(text)
    schema = next((value for name, value in pairs if name == "schema"), "public")
    kept = [
        (name, value)
        for name, value in pairs
        if name not in (*_PRISMA_ONLY, "schema") and (name != "pgbouncer" or value == "true")
    ]
    if len(kept) == len(pairs):
        return text
    if schema != "public":
        kept.append(("options", f"-csearch_path={schema}"))
    return _with_query(text, kept)


def without_mark(dsn: str) -> tuple[str, bool]:
    """An address for libpq, and whether it was marked as that of a transaction pooler."""
    pairs = _query(dsn) if "pgbouncer=" in dsn else []
    if _POOLER not in pairs:
        return dsn, False
    return _with_query(dsn, [pair for pair in pairs if pair != _POOLER]), True


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def _with_query(url: str, pairs: list[tuple[str, str]]) -> str:
    return urlunsplit(urlsplit(url)._replace(query=urlencode(pairs, quote_via=quote)))


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "DATABASE_URL", "database_url", parse_dsn, "PostgreSQL 18 or newer; else the embedded one"
    ),
    Setting("CP_DIRECT_URL", "direct_url", parse_dsn, "past a transaction pooler: for imports"),
    Setting("CP_HOME", "home", _path, "where the embedded PostgreSQL and caches live"),
    Setting("CP_PG_BIN", "pg_bin", _path, "bin folder of the PostgreSQL 18 to run embedded"),
    Setting("CP_MEMORY", "memory", _memory, "upper bound of an import's map of known rows"),
    Setting("CSV_PATH", "csv_path", str, "the file to import when none is named"),
    Setting("IMPORT_ROOTS", "import_roots", _paths, "folders that imports over HTTP may read"),
    Setting("HOST", "host", _host, "address that the HTTP API listens on"),
    Setting("PORT", "port", _whole(0, 65535), "port that the HTTP API listens on"),
    Setting("IMPORT_BATCH_SIZE", "batch_rows", _whole(100, 1_000_000), "rows per commit, at most"),
    Setting("IMPORT_SETTLE_SEC", "settle_s", _seconds, "seconds a file stands still first"),
    Setting("IMPORT_TOTAL_ROWS", "total_rows", _whole(1, 10**15), "expected rows, for per cent"),
    Setting("IMPORT_PROGRESS_EVERY_MS", "progress_every_ms", _whole(200, 30_000), "news interval"),
    Setting("IMPORT_RECENT_LIMIT", "recent_limit", _whole(1, 200), "newest rows in a snapshot"),
    Setting("SSE_HEARTBEAT_MS", "heartbeat_ms", _whole(100, 3_600_000), "stream heartbeat"),
    Setting("SSE_MAX_STREAMS", "max_streams", _whole(1, 100_000), "open streams, at most"),
    Setting("CORS_ORIGINS", "cors_origins", _origins, "origins that may call, comma-separated"),
    Setting("CP_API_KEYS", "api_keys", _keys, "keys that callers need: SECRET[:scope+scope],..."),
    Setting("CP_ALLOW_NO_AUTH", "allow_no_auth", _switch, "1: no keys, whoever can reach it"),
    Setting("CP_ALLOWED_HOSTS", "allowed_hosts", _hosts, "names the server answers to; * is any"),
)


def _did_you_mean(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _read_dotenv(path: Path) -> dict[str, str]:
    """The lines NAME=value of a file that may be missing, as python-dotenv reads them; `$` has no
    special meaning. Raises SettingsError, naming the line, for one that python-dotenv would skip.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    # Only if there is such a file: this import takes longer than all the rest of `load`.
    from dotenv.parser import parse_stream

    found: dict[str, str] = {}
    for key, value, source, is_error in parse_stream(io.StringIO(text)):
        if key is None and not is_error:
            continue  # a comment, or the empty end
        if key is None or value is None or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", key):
            # python-dotenv counts from the empty lines above it.
            above = re.match(r"\s*", source.string)
            number = source.line + (above[0].count("\n") if above else 0)
            raise SettingsError(f"{path}, line {number}: not of the form NAME=value")
        found[key] = value
    return found

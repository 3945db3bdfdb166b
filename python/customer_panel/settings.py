"""The settings: read once, checked at once, frozen.

Every setting is an environment variable, or a line of the `.env` in the working folder; the
environment wins. A value that cannot be used stops the command before it touches anything, and
so does a CP_ name that does not exist, which is most often a typing error in one that does.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

from customer_panel.errors import SettingsError

MEMORY_BYTES = 512 << 20  # room for 20 million identities at about 20 bytes each, and some air
BATCH_ROWS = 200_000  # more brings nothing: fewer, larger batches cost memory only
HEARTBEAT_MS = 15_000  # below the 30 s after which common proxies drop a silent stream


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment says. `repr` shows no password."""

    database_url: str | None = None
    direct_url: str | None = None
    home: Path = Path()
    pg_bin: Path | None = None
    memory: int = MEMORY_BYTES
    csv_path: str | None = None
    host: str = "127.0.0.1"
    port: int = 3000
    batch_rows: int = BATCH_ROWS
    total_rows: int | None = None
    progress_every_ms: int = 1000
    recent_limit: int = 20
    heartbeat_ms: int = HEARTBEAT_MS
    cors_origins: tuple[str, ...] = ()

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
                except ValueError as wrong:
                    raise SettingsError(f"{setting.name}: {wrong}") from None
        return cls(**values)

    def shown(self) -> Iterator[tuple[str, str]]:
        """(name, value) of every setting, passwords blotted out."""
        for setting in SETTINGS:
            value = getattr(self, setting.field)
            yield setting.name, redacted(str(value)) if value not in (None, ()) else "not set"

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value}' for name, value in self.shown())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self.shown())


class Setting(NamedTuple):
    """One row of the table that `load`, `shown`, the documentation and a test read."""

    name: str
    field: str
    parse: Callable[[str], Any]
    meaning: str


def redacted(text: str) -> str:
    """`text` without the passwords of URLs and connection strings in it."""
    text = re.sub(r"(://[^/@\s:]*:)[^@\s]*@", r"\1***@", text)
    return re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", text, flags=re.I)


def default_home() -> Path:
    """The platform's folder for a user's application files."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "customer-panel"
    base = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative value is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".local/share") / "customer-panel"


# -- parsing: each function returns the value or raises ValueError with what is accepted ---------


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def parse_bytes(text: str) -> int:
    """A size with an optional suffix; k, M, G and T are powers of 1024, however written."""
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


def _origins(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


# What Prisma puts into a DATABASE_URL and libpq refuses; `schema` is translated, not dropped.
_PRISMA_ONLY = (
    *("connection_limit", "pool_timeout", "socket_timeout", "pgbouncer", "sslaccept"),
    *("statement_cache_size", "single_use_connections", "sslidentity"),
)


def _dsn(text: str) -> str:
    """A libpq connection string; a URL written for Prisma is taken too."""
    if re.match(r"[a-z_]+\s*=", text):
        return text
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("not a connection string such as postgresql://user@host:5432/name")
    parts = urlsplit(text)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    schema = next((value for name, value in pairs if name == "schema"), "public")
    kept = [(n, v) for n, v in pairs if n not in _PRISMA_ONLY and n != "schema"]
    if len(kept) == len(pairs):
        return text
    if schema != "public":
        kept.append(("options", f"-csearch_path={schema}"))
    return urlunsplit(parts._replace(query=urlencode(kept, quote_via=quote)))


SETTINGS: tuple[Setting, ...] = (
    Setting("DATABASE_URL", "database_url", _dsn, "PostgreSQL 18 or newer; else the embedded one"),
    Setting("CP_DIRECT_URL", "direct_url", _dsn, "past a transaction pooler: for imports"),
    Setting("CP_HOME", "home", _path, "where the embedded PostgreSQL and caches live"),
    Setting("CP_PG_BIN", "pg_bin", _path, "bin folder of the PostgreSQL 18 to run embedded"),
    Setting("CP_MEMORY", "memory", _memory, "upper bound of an import's map of known rows"),
    Setting("CSV_PATH", "csv_path", str, "the file to import when none is named"),
    Setting("HOST", "host", str, "address that the HTTP API listens on"),
    Setting("PORT", "port", _whole(0, 65535), "port that the HTTP API listens on"),
    Setting("IMPORT_BATCH_SIZE", "batch_rows", _whole(100, 1_000_000), "rows per commit, at most"),
    Setting("IMPORT_TOTAL_ROWS", "total_rows", _whole(1, 10**15), "expected rows, for per cent"),
    Setting("IMPORT_PROGRESS_EVERY_MS", "progress_every_ms", _whole(200, 30_000), "news interval"),
    Setting("IMPORT_RECENT_LIMIT", "recent_limit", _whole(1, 200), "newest rows in a snapshot"),
    Setting("SSE_HEARTBEAT_MS", "heartbeat_ms", _whole(100, 3_600_000), "stream heartbeat"),
    Setting("CORS_ORIGINS", "cors_origins", _origins, "origins that may call, comma-separated"),
)


def _did_you_mean(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _read_dotenv(path: Path) -> dict[str, str]:
    """The lines NAME=value of a file that need not exist; quotes and `export` as in a shell."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path} cannot be read: {wrong}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*)", line)
        if not match:
            raise SettingsError(f"{path}, line {number}: not of the form NAME=value")
        name, value = match.groups()
        quoted = re.fullmatch(r"""(["'])(.*?)\1\s*(?:#.*)?""", value)
        found[name] = quoted[2] if quoted else re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
    return found

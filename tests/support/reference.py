"""A plain importer in Python: slow, in memory, and written from the rules instead of the engine.

It shares nothing with the engine but the table of columns, so where the two agree on a file, both
have to be wrong in the same way. Hashes are not computed: a row's source hash is here the tuple of
all that decides it, and equal tuples stand for equal hashes.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from customer_panel.customer import COLUMNS, FULL_NAME_ALIASES

FIELD_LIMIT = 1 << 20
RECORD_LIMIT = 8 << 20
RAW_LIMIT = 64 << 10

NAMES = [column.name for column in COLUMNS]
WHITE_SPACE = [
    *range(0x09, 0x0E),
    *(0x20, 0x85, 0xA0, 0x1680),
    *range(0x2000, 0x200B),
    *(0x2028, 0x2029, 0x202F, 0x205F, 0x3000),
]
INVISIBLE = [0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x180E]
TRIMMED = "".join(map(chr, WHITE_SPACE + INVISIBLE))
MONTHS = [
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
]

Value = str | datetime.date | None


# -- records --------------------------------------------------------------------------------------


class Record(NamedTuple):
    start: int
    end: int  # line end included
    fields: list[bytes]
    fault: str | None


def records(text: bytes, start: int, delimiter: bytes) -> Iterator[Record]:
    """The records of `text` from `start` on, one byte after the other."""
    at = start
    while at < len(text):
        if text[at : at + 1] in (b"\n", b"\r"):
            at += 1
            continue
        begin, fields, fault = at, [], None
        while True:
            start = at
            if text[at : at + 1] == b'"':
                close = _closing_quote(text, at)
                if close is None:
                    fault = "unclosed_quote"
                    while at < len(text) and text[at : at + 1] not in (b"\n", b"\r"):
                        at += 1
                    break
                content = text[at + 1 : close].replace(b'""', b'"')
                at = close + 1
            else:
                content = b""
            tail = at
            while at < len(text) and text[at : at + 1] not in (b"\n", b"\r", delimiter):
                at += 1
            fields.append(content + text[tail:at])
            if at - start > FIELD_LIMIT:
                fault = "field_over_limit"
            if text[at : at + 1] != delimiter:
                break
            at += 1
        if text[at : at + 2] == b"\r\n":
            at += 2
        elif at < len(text):
            at += 1
        if at - begin > RECORD_LIMIT:
            fault = "record_over_limit"
        yield Record(begin, at, fields, fault)


def _closing_quote(text: bytes, opening: int) -> int | None:
    at = opening + 1
    while at < min(len(text), opening + FIELD_LIMIT):
        if text[at : at + 1] != b'"':
            at += 1
        elif text[at + 1 : at + 2] == b'"':
            at += 2
        else:
            return at
    return None


def line_ends(text: bytes) -> int:
    return len(re.findall(rb"\r\n|\r|\n", text))


# -- columns --------------------------------------------------------------------------------------


def _folded(name: str) -> str:
    return "".join(c for c in name if c not in TRIMMED and c not in "_-.").lower()


def columns_of(headers: list[str]) -> list[str | None]:
    """The field of each column, for headers without two equal claims."""
    lists = {column.name: column.aliases for column in COLUMNS} | {"full_name": FULL_NAME_ALIASES}
    claims: dict[str, list[tuple[int, int]]] = {name: [] for name in lists}
    for at, header in enumerate(headers):
        for name, aliases in lists.items():
            ranks = [_folded(alias) for alias in aliases]
            if _folded(header) in ranks:
                claims[name].append((ranks.index(_folded(header)), at))
    columns: list[str | None] = [None] * len(headers)
    for name, claimed in claims.items():
        if claimed:
            columns[min(claimed)[1]] = name
    if len(claims["phone1"]) > 1 and not claims["phone2"]:
        columns[sorted(claims["phone1"])[1][1]] = "phone2"
    return columns


# -- values ---------------------------------------------------------------------------------------


class Rejected(Exception):
    def __init__(self, code: str, name: str | None = None) -> None:
        self.code, self.name = code, name


def trimmed(text: str) -> str:
    return text.strip(TRIMMED)


def identity(text: str) -> str:
    """Without Excel's marks, in NFC; `text` is trimmed."""
    if len(text) >= 3 and text.startswith('="') and text.endswith('"'):
        text = trimmed(text[2:-1])
    elif text.startswith("'"):
        text = trimmed(text[1:])
    return unicodedata.normalize("NFC", text)


def email(text: str) -> str:
    """In lower case and in NFC, until nothing changes; `text` is trimmed."""
    while (changed := unicodedata.normalize("NFC", text.lower())) != text:
        text = changed
    return text


def date(text: str, order: str | None) -> tuple[datetime.date | None, str | None]:
    """The date, or why there is none."""
    found = _date(text, order)
    return (None, found) if isinstance(found, str) else (found, None)


def _date(text: str, order: str | None) -> datetime.date | str:
    unreadable = "unreadable_date"
    if match := re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(.*)", text, re.S):
        rest = match[4]
        time = r"[Tt ](\d\d):(\d\d)(:(\d\d)([.,]\d+)?)?( ?(?:[Zz]|[+-]\d\d(:?\d\d)?))?"
        if rest:
            clock = re.fullmatch(time, rest, re.A)
            if not clock or int(clock[1]) > 24 or int(clock[2]) > 59 or int(clock[4] or 0) > 60:
                return unreadable
        return _calendar(match[1], match[2], match[3]) or unreadable
    if match := re.fullmatch(r"([0-9]{4})([-/])([0-9]{1,2})\2([0-9]{1,2})", text):
        return _calendar(match[1], match[3], match[4]) or unreadable
    if match := re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})", text):
        return _calendar(match[3], match[2], match[1]) or unreadable
    if match := re.fullmatch(r"([0-9]{1,2}) ([A-Za-z]+) ([0-9]{4})", text):
        return _calendar(match[3], _month(match[2]), match[1]) or unreadable
    if match := re.fullmatch(r"([A-Za-z]+) ([0-9]{1,2}),? ([0-9]{4})", text):
        return _calendar(match[3], _month(match[1]), match[2]) or unreadable
    if match := re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})", text):
        mdy = _calendar(match[3], match[1], match[2])
        dmy = _calendar(match[3], match[2], match[1])
        if mdy and dmy and mdy != dmy:
            return {"mdy": mdy, "dmy": dmy}.get(order or "", "ambiguous_date")
        return mdy or dmy or unreadable
    return unreadable


def _month(name: str) -> int:
    for number, month in enumerate(MONTHS, 1):
        if name.lower() in (month, month[:3]):
            return number
    return 0


def _calendar(year: str, month: str | int, day: str) -> datetime.date | None:
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        return None


def row_of(
    fields: list[str], columns: list[str | None], order: str | None
) -> tuple[dict[str, Value], str | None]:
    """The customer of a record's fields, and the warning about its date. Raises Rejected."""
    cells = dict.fromkeys([*NAMES, "full_name"], "")
    for name, text in zip(columns, fields, strict=False):
        if name is not None:
            cells[name] = trimmed(text)
    key, limit, about = identity(cells["customer_id"]), 255, "customer_id"
    if not key:
        key, limit, about = identity(cells["email"]), 254, "email"
        before, at, behind = key.partition("@")
        if not (before and at and behind) or "@" in behind or any(c in TRIMMED for c in key):
            raise Rejected("no_identity")
        key = email(key)
    if len(key) > limit:
        raise Rejected("too_long", about)
    if cells["full_name"] and not cells["first_name"]:
        first, _, last = cells["full_name"].partition(" ")
        cells["first_name"] = trimmed(first)
        cells["last_name"] = cells["last_name"] or trimmed(last)
    row: dict[str, Value] = {"customer_id": key}
    warning = None
    for column in COLUMNS[1:]:
        text = cells[column.name]
        if not text:
            row[column.name] = None
        elif column.kind == "date":
            row[column.name], warning = date(text, order)
        else:
            text = email(text) if column.kind == "email" else text
            if len(text) > column.limit:
                raise Rejected("too_long", column.name)
            row[column.name] = text
    return row, warning


# -- the table ------------------------------------------------------------------------------------


@dataclass
class Counts:
    processed: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    protected: int = 0
    duplicate: int = 0
    skipped: int = 0
    warnings: int = 0


@dataclass
class Customer:
    values: dict[str, Value]
    source_hash: object = None
    many_rows: bool = False
    feed: str | None = None
    edited: frozenset[str] = frozenset()
    base: dict[str, Value] = field(default_factory=dict)
    is_deleted: bool = False
    is_imported: bool = True


class Reject(NamedTuple):
    line: int
    byte_from: int
    byte_to: int
    severity: str
    code: str
    field: str | None
    raw: bytes


Row = tuple[dict[str, Value], object]


class Reference:
    """A database of customers, and imports into it."""

    def __init__(self) -> None:
        self.customers: dict[str, Customer] = {}

    def edit(self, key: str, **values: Value) -> None:
        """What a person changes: kept by every later import."""
        customer = self.customers[key]
        for name, value in values.items():
            if customer.values[name] != value:
                if name not in customer.edited:
                    customer.base[name] = customer.values[name]
                    customer.edited |= {name}
                customer.values[name] = value

    def create(self, key: str, **values: Value) -> None:
        every: dict[str, Value] = dict.fromkeys(NAMES[1:]) | values
        self.customers[key] = Customer(every, is_imported=False)

    def delete(self, key: str) -> None:
        self.customers[key].is_deleted = True

    def load(
        self,
        text: bytes,
        *,
        feed: str = "main",
        clear: bool = False,
        delimiter: bytes = b",",
        order: str | None = None,
    ) -> tuple[Counts, list[Reject]]:
        """Imports a file."""
        counts, rejects = Counts(), []
        start = 3 if text.startswith(b"\xef\xbb\xbf") else 0
        found = records(text, start, delimiter)
        headers = [trimmed(name.decode()) for name in next(found).fields]
        columns = columns_of(headers)
        mapped = frozenset(name for name in columns if name is not None)
        filled = mapped | ({"first_name", "last_name"} if "full_name" in mapped else set())
        clears = filled if clear else frozenset()
        rows: dict[str, list[Row]] = {}
        line, counted_to = 1, 0
        for record in found:
            line += line_ends(text[counted_to : record.start])
            counted_to = record.start
            counts.processed += 1
            raw = text[record.start : record.end]
            try:
                row, warning = _converted(record, raw, columns, order)
            except Rejected as error:
                counts.skipped += 1
                problem: tuple[str, str, str | None] | None = ("reject", error.code, error.name)
            else:
                row_hash = (mapped, clear, tuple(row.items()))
                rows.setdefault(str(row.pop("customer_id")), []).append((row, row_hash))
                problem = warning and ("warning", warning, "subscription_date")
                counts.warnings += warning is not None
            if problem:
                span = (line, record.start, record.end)
                rejects.append(Reject(*span, *problem, raw[:RAW_LIMIT]))
        for key, of_one in rows.items():
            counts.duplicate += len(of_one) - 1
            outcome = self._load_one(key, of_one, feed, clears)
            setattr(counts, outcome, getattr(counts, outcome) + 1)
        return counts, rejects

    def _load_one(self, key: str, rows: list[Row], feed: str, clears: frozenset[str]) -> str:
        """All rows of one customer, in the order of the file; what its first one counts as."""
        known = self.customers.get(key)
        (values, first_hash), later = rows[0], rows[1:]
        is_many = bool(later)
        chain = ("chain", first_hash, *(row_hash for _, row_hash in later))
        last_hash = chain if is_many else first_hash
        if known is None:
            self.customers[key] = Customer(dict(values), first_hash, feed=feed)
            outcome = "inserted"
        else:
            is_held = known.edited or known.is_deleted or not known.is_imported
            is_same = known.source_hash == first_hash
            if known.many_rows or (is_held and not is_same):
                # Judged once for the whole file.
                if (known.source_hash, known.many_rows) == (last_hash, is_many):
                    return "unchanged"
                whole = _folded_rows(rows)
                return self._merge(key, whole, clears, last_hash, is_many, feed)
            outcome = "unchanged"
            if not is_same:
                outcome = self._merge(key, values, clears, first_hash, False, feed)
        if is_many:
            self._merge(key, _folded_rows(later), frozenset(), chain, True, feed)
        return outcome

    def _merge(
        self,
        key: str,
        values: dict[str, Value],
        clears: frozenset[str],
        source_hash: object,
        many_rows: bool,
        feed: str,
    ) -> str:
        customer = self.customers[key]
        if customer.is_deleted:
            return "protected"
        if not customer.is_imported:
            filled = {name for name, value in customer.values.items() if value is not None}
            customer.edited |= filled
            customer.is_imported, customer.feed = True, feed
        brought = {name: v for name, v in values.items() if v is not None or name in clears}
        changes = {
            name: value
            for name, value in brought.items()
            if name not in customer.edited and customer.values[name] != value
        }
        is_known = (customer.source_hash, customer.many_rows) == (source_hash, many_rows)
        if is_known or not (customer.feed == feed or changes):
            return "unchanged"
        customer.values.update(changes)
        customer.base.update({n: v for n, v in brought.items() if n in customer.edited})
        customer.source_hash, customer.many_rows, customer.feed = source_hash, many_rows, feed
        if any(n in customer.edited and customer.values[n] != v for n, v in brought.items()):
            return "protected"
        return "updated" if changes else "unchanged"


def _converted(
    record: Record, raw: bytes, columns: list[str | None], order: str | None
) -> tuple[dict[str, Value], str | None]:
    if record.fault:
        raise Rejected(record.fault)
    if b"\0" in raw:
        raise Rejected("nul_byte")
    try:
        fields = [content.decode() for content in record.fields]
    except UnicodeDecodeError:
        raise Rejected("invalid_utf8") from None
    if any(trimmed(surplus) for surplus in fields[len(columns) :]):
        raise Rejected("extra_fields")
    return row_of(fields, columns, order)


def _folded_rows(rows: list[Row]) -> dict[str, Value]:
    """Field by field the last value."""
    values = dict(rows[0][0])
    for row, _ in rows[1:]:
        values |= {name: value for name, value in row.items() if value is not None}
    return values


def copied(reference: Reference) -> Reference:
    """A database with the same customers."""
    copy = Reference()
    for key, customer in reference.customers.items():
        copy.customers[key] = replace(
            customer, values=dict(customer.values), base=dict(customer.base)
        )
    return copy

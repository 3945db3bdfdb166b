"""Values as the database holds them: the rules of the import, for values from the API.

E-mails and identities go through the function that files go through. For the rest
`rust/core/src/values/` has the same rules; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

from customer_panel._native import normalize_email, normalize_identity

# White space, and the marks that are invisible at the ends of a value: zero-width space,
# non-joiner and joiner, word joiner, byte order mark, and the old Mongolian vowel separator.
RUN = "".join(map(chr, range(0x2000, 0x200E)))
SPACES = f"\t\n\v\f\r \x85\xa0\u1680\u180e{RUN}\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"


def text(value: str) -> str | None:
    """Trimmed; None for a blank."""
    return value.strip(SPACES) or None


def email(value: str) -> str | None:
    """Trimmed, in lower case and in NFC; None for a blank."""
    return normalize_email(value) or None


def identity(value: str) -> str | None:
    """A `customerId` as an import stores it: trimmed, in NFC, without Excel's `="..."` or `'`."""
    return normalize_identity(value) or None


def day(value: str) -> date:
    """The day of a date, or the day in UTC of a timestamp. Raises ValueError for any other text."""
    if len(value) == 10:
        return date.fromisoformat(value)
    moment = datetime.fromisoformat(value)
    try:
        return moment.astimezone(UTC).date()
    except OverflowError:
        # The last hours of the year 9999 and the first hours of the year 1.
        return moment.date()


# By the kind of a column, texts that are stored in another form than they are sent.
STORED: dict[str, Callable[[str], str | None]] = {"email": email, "identity": identity}

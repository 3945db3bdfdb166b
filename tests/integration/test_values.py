"""Values that a person types and values of a file: one rule for both."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator

import pytest

from customer_panel._native import email_identity
from customer_panel.customers import values
from support import reference
from support.compare import run as run_import

ODD = [
    *("x", " x ", "\u00a0x\u200b", "\ufeffx", "x\u2060", "\u180ex\u3000", "\x1cx", "x\x85"),
    *("e\u0301", "\u212b", "'0123", '="0124"', '="x', "'", '=""', "x'y", "\u200c\u200d", "''y"),
    *("J\u030c", "\u01f0", "u\u0308", "A\u0302\u0323", "\u1ea4", "\u0958", "I\u0307\u0323"),
    *("STRASSE", "Straße", "İstanbul", "ΣΑΣ", "ΑΣ Σ", "ǅ", "𝒳", "a\u0345", "\u1e9e", "ﬁ"),
]


def test_what_is_typed_is_stored_as_an_import_would_store_it(dsn, database, tmp_path):
    rows = [["Customer Id", "First Name", "City", "Email"]]
    for number, odd in enumerate(ODD):
        rows.append([f"city {number}", "", odd, ""])
        rows.append([f"email {number}", "", "", f"{odd}@Example.com"])
        rows.append([odd, str(number), "", ""])
    file = tmp_path / "odd.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    run_import(file, dsn)
    found = {
        row[0]: row[1:]
        for row in database.execute(
            "SELECT customer_id, city, email, first_name FROM customers"
        ).fetchall()
    }
    by_number = {row[2]: key for key, row in found.items() if row[2] is not None}
    for number, odd in enumerate(ODD):
        assert found[f"city {number}"][0] == values.text(odd), odd
        assert found[f"email {number}"][1] == values.email(f"{odd}@Example.com"), odd
        # Two that come to the same identity are one customer, and one that comes to none is none.
        same = [n for n, other in enumerate(ODD) if values.identity(other) == values.identity(odd)]
        stored = {by_number[str(n)] for n in same if str(n) in by_number}
        assert stored == {values.identity(odd)} - {None}, odd


def assigned() -> Iterator[str]:
    """The characters that Python's Unicode has; half a surrogate pair is none."""
    for number in range(0x110000):
        if unicodedata.category(chr(number)) not in ("Cn", "Cs"):
            yield chr(number)


def test_every_character_of_an_e_mail_is_stored_as_the_rule_says():
    """Python's own tables are the judge: lower case and NFC, until nothing changes."""
    for c in assigned():
        texts = [f"{c}@x", f"a{c}\u0307@x"]
        # What stands around a sigma. Of rarer scripts Unicode has changed its mind; of U+0295 too.
        if (c < "\u0590" or "\u1f00" <= c < "\u2000") and c != "\u0295":
            texts += [f"\u0391\u03a3{c}\u03b1\u0301@x", f"x@{c}\u03a3", f"x@a{c}\u03a3{c}"]
        for text in texts:
            expected = reference.email(reference.trimmed(text))
            assert values.email(text) == expected, ascii(text)
            assert values.email(expected) == expected, ascii(text)


def test_every_character_of_an_identity_is_stored_as_the_rule_says():
    for c in assigned():
        for text in (c, f"a{c}\u0307\u0323", f"'{c}", f'="{c}"'):
            expected = reference.identity(reference.trimmed(text))
            assert (values.identity(text) or "") == expected, ascii(text)


@pytest.mark.parametrize("read", [values.email, values.identity, email_identity])
def test_half_a_surrogate_pair_is_an_error_and_no_panic(read):
    with pytest.raises(UnicodeEncodeError):
        read("a\ud800@x")

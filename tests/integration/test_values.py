"""Values that a person types and values of a file: one rule for both."""

from __future__ import annotations

import csv

from customer_panel.customers import values
from support.compare import run as run_import

ODD = [
    *("x", " x ", "\u00a0x\u200b", "\ufeffx", "x\u2060", "\u180ex\u3000", "\x1cx", "x\x85"),
    *("e\u0301", "\u212b", "'0123", '="0124"', '="x', "'", '=""', "x'y", "\u200c\u200d", "''y"),
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

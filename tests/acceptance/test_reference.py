"""The engine and the plain Python importer come to the same table, counts and rejects."""

from __future__ import annotations

from pathlib import Path

import pytest

from customer_panel import _native
from support.compare import content, counts, expected, rejects, run
from support.reference import FIELD_LIMIT, RECORD_LIMIT, Reference


@pytest.fixture
def generated(tmp_path: Path):
    """Writes a generated file: customers of one seed, of whom some may be changed."""

    def generate(name: str, **options) -> Path:
        path = tmp_path / name
        _native.generate(str(path), **options)
        return path

    return generate


@pytest.mark.parametrize("about", [False, True])
def test_a_generated_file_and_its_changes_give_the_table_of_the_reference(generated, dsn, about):
    reference = Reference()
    common = {"rows": 4000, "seed": 11, "about": about}
    for name, options in {
        "first": {"duplicates": 0.1, "dirty": 0.2},
        "same": {"duplicates": 0.1, "dirty": 0.2},
        "changed": {"duplicates": 0.1, "dirty": 0.2, "changed": 0.3},
        "clean": {},
        "other dirt": {"duplicates": 0.3, "dirty": 0.5, "changed": 0.1},
    }.items():
        path = generated(f"{name}.csv", **common, **options)
        wanted, set_aside = reference.load(path.read_bytes())
        result = run(path, dsn, lanes=2, batch_rows=700)
        assert counts(result) == wanted, name
        assert content(dsn) == expected(reference), name
        assert rejects(dsn, result.job_id) == set_aside, name


def test_the_order_of_rows_of_one_customer_matters(tmp_path, dsn):
    """The same rows in another order are another file, whichever two are swapped."""
    reference = Reference()
    for order in ("abc", "abc", "acb", "cab", "cba", "ab", "ba", "b", "bb", "b"):
        path = tmp_path / "file.csv"
        path.write_text("id,city\n" + "".join(f"1,{city}\n" for city in order))
        wanted, _ = reference.load(path.read_bytes())
        assert counts(run(path, dsn)) == wanted, order
        assert content(dsn) == expected(reference), order
        assert content(dsn)["1"][3] == order[-1]


def test_what_is_too_large_costs_one_record(tmp_path, dsn):
    """Fields and records at their limits and one byte over, quotes that close a byte too late."""
    path = tmp_path / "file.csv"
    field, half = b"x" * FIELD_LIMIT, b"y" * (FIELD_LIMIT // 2)
    wide = b",".join([b"8", *[half] * 15])
    records = [
        b"1,at the limit," + field,
        b"2,over it," + field + b"x",
        b'3,closed in time,"' + field[2:] + b'"',
        b'4,too late,"' + field[1:] + b'"',
        b'5,"never,' + b"z" * 100,
        b'6,quoted,"' + half + b'\n"",' + half[10:] + b'"',
        wide + b"y" * (RECORD_LIMIT - len(wide) - 1),
        wide + b"y" * (RECORD_LIMIT - len(wide)),
        b"9,plain,",
    ]
    text = b"id,city,notes\n" + b"\n".join(records) + b"\n"
    path.write_bytes(text)
    reference = Reference()
    wanted, set_aside = reference.load(text)
    codes = [reject.code for reject in set_aside]
    assert {"too_long", "field_over_limit", "unclosed_quote", "record_over_limit"} <= {*codes}
    result = run(path, dsn)
    assert rejects(dsn, result.job_id) == set_aside
    assert counts(result) == wanted
    assert content(dsn) == expected(reference)

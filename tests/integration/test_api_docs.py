"""The examples of docs/api.md are true: each is run, in order, on a fresh server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.api import serving
from support.customers import csv
from support.envelope import CODES

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text()
ROWS = 20_000


def examples() -> list[tuple[str, str]]:
    """Commands, and what they print."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.S):
        found += re.findall(r"^\$ (.*)\n(.*)$", block, re.M)
    return found


def is_like(told: object, written: object) -> bool:
    """Equal, where "..." stands for anything, and as a name for more of the kind."""
    if written == "...":
        return True
    if isinstance(written, dict) and isinstance(told, dict):
        names = set(written) - {"..."}
        return (names <= set(told) if "..." in written else names == set(told)) and all(
            is_like(told[name], written[name]) for name in names
        )
    if isinstance(written, list) and isinstance(told, list):
        return len(told) == len(written) and all(map(is_like, told, written))
    return told == written


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_examples_of_the_page_are_true(dsn, tmp_path):
    (tmp_path / "data").mkdir()
    csv(tmp_path / "data/customers.csv", ROWS)
    listed = examples()
    assert len(listed) > 8
    with serving(tmp_path, DATABASE_URL=dsn) as api:
        for command, written in listed:
            done = subprocess.run(
                ["bash", "-c", command.replace("localhost:3000", f"localhost:{api.port}")],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            told = done.stdout.strip()
            if told != written:
                assert is_like(json.loads(told), json.loads(written)), f"{command}\n{told}"


def test_the_page_knows_every_code_and_every_call(api):
    for status, code in CODES.items():
        assert f"`{code}`" in PAGE
        assert re.search(rf"^\|[^|]*\b{status}\b", PAGE, re.M), status
    for path in api.root.get("/api/docs-json").json()["paths"]:
        last = path.removeprefix("/api/v1")
        assert last in PAGE or f"/{last.rpartition('/')[2]}`" in PAGE, path

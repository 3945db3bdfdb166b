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


def is_like(answer: object, written: object) -> bool:
    """Equal, where "..." stands for anything, and as a name for more of the kind."""
    if written == "...":
        return True
    if isinstance(written, dict) and isinstance(answer, dict):
        names = set(written) - {"..."}
        return (names <= set(answer) if "..." in written else names == set(answer)) and all(
            is_like(answer[name], written[name]) for name in names
        )
    if isinstance(written, list) and isinstance(answer, list):
        return len(answer) == len(written) and all(map(is_like, answer, written))
    return answer == written


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
            answer = done.stdout.strip()
            if answer != written:
                assert is_like(json.loads(answer), json.loads(written)), f"{command}\n{answer}"


def test_the_page_knows_every_code_and_every_call(api):
    for status, code in CODES.items():
        assert f"`{code}`" in PAGE
        assert re.search(rf"^\|[^|]*\b{status}\b", PAGE, re.M), status
    for path in api.root.get("/api/docs-json").json()["paths"]:
        last = path.removeprefix("/api/v1")
        assert last in PAGE or f"/{last.rpartition('/')[2]}`" in PAGE, path

"""schemathesis against the real server: whatever the document allows or forbids, no 5xx, no surprise.

FUZZ_CASES: cases an operation. `make fuzz-api` has thousands, and another seed each time.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support.api import Api, serving
from support.customers import csv
from support.envelope import ok

HERE = Path(__file__).parent
CASES = int(os.environ.get("FUZZ_CASES", "0"))
SEED = random.randrange(1 << 30) if CASES else 1
PATIENCE_S = 36_000.0 if CASES else 300.0


# Apart: when it is to walk from one operation to the next too, it tries some of them less by themselves.
@pytest.mark.parametrize("phases", ["examples,coverage,fuzzing", "stateful"])
def test_no_answer_is_outside_the_document(databases, template, tmp_path, phases):
    (tmp_path / "data").mkdir()
    # The first is the document's example.
    names = ("data/customers.csv", "two.csv", "three.csv")
    files = [csv(tmp_path / name, 20, dirty=0.1) for name in names]
    with (
        databases.copy(template) as dsn,
        serving(
            tmp_path,
            DATABASE_URL=dsn,
            IMPORT_ROOTS=tmp_path,
            CSV_PATH=files[0],
        ) as api,
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(HERE / "schemathesis.toml"), "--no-color", "run"),
                # Threads that parse Python at once trip over each other in CPython 3.11, now and then.
                *("--checks", "all", "--phases", phases, "--workers", "1"),
                *("--max-examples", str(CASES or 200), "--seed", str(SEED)),
                # `make test` is to fail for a change, not for its luck.
                *([] if CASES else ["--generation-deterministic"]),
                f"{api.root.base_url}/api/docs-json",
            ],
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "hooks",
                "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
                "FUZZ_FILES": os.pathsep.join(map(str, files)),
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        asked = requests(api)
        print(done.stdout, done.stderr, asked)
        assert done.returncode == 0, f"seed {SEED}"
        ok(api.get("/customers"))
        assert api.root.get("/health/ready").status_code == 200
        assert not [line for line in api.log if "traceback" in line.lower()]
        if phases != "stateful":
            assert were_tried(api, asked)


def requests(api: Api) -> Counter[tuple[str, str]]:
    """How often each operation was called, by method and path."""
    counted: Counter[tuple[str, str]] = Counter()
    for line in api.root.get("/metrics").text.splitlines():
        found = re.match(r"customer_panel_requests_total{(.*)} ([0-9.e+]+)", line)
        if found:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', found[1]))
            counted[labels["method"], labels["route"]] += int(float(found[2]))
    return counted


def were_tried(api: Api, asked: Counter[tuple[str, str]]) -> bool:
    """Every operation that takes anything was called as often as was asked for."""
    for path, item in api.root.get("/api/docs-json").json()["paths"].items():
        for method, operation in item.items():
            if operation.get("parameters") or operation.get("requestBody"):
                assert asked[method.upper(), path] >= (CASES or 200), f"{method} {path}"
    return True

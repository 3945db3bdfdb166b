"""schemathesis against the real server: whatever the document allows or forbids, no 5xx, no surprise.

FUZZ_CASES: cases an operation. `make fuzz-api` has thousands, and another seed each time.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from api import Api, csv, ok, serving

HERE = Path(__file__).parent
CASES = int(os.environ.get("FUZZ_CASES", "0"))
SEED = random.randrange(1 << 30) if CASES else 1
PATIENCE_S = 3600.0 if CASES else 300.0


def test_no_answer_is_outside_the_document(databases, template, tmp_path):
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
            SSE_HEARTBEAT_MS=100,
        ) as api,
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(HERE / "schemathesis.toml"), "--no-color", "run"),
                *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
                *("--max-examples", str(CASES or 200), "--seed", str(SEED), "--workers", "2"),
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
        print(done.stdout, done.stderr)
        assert done.returncode == 0, f"seed {SEED}"
        assert "Stateful" in done.stdout
        ok(api.get("/customers"))
        assert api.root.get("/health/ready").status_code == 200
        document = api.root.get("/api/docs-json").json()
        # It did what it was asked to.
        asked = Counter(requests(api))
        for path, item in document["paths"].items():
            pattern = re.compile(re.sub(r"{[^}]+}", "[^/]*", path))
            for method, operation in item.items():
                if operation.get("parameters") or operation.get("requestBody"):
                    number = sum(
                        count
                        for (how, where), count in asked.items()
                        if how == method.upper() and pattern.fullmatch(where)
                    )
                    assert number >= (CASES or 200) / 2, f"{method} {path}: {number}"


def requests(api: Api) -> Iterator[tuple[str, str]]:
    """Method and path of every line of the log."""
    for line in api.log:
        if line.startswith("{"):
            told = json.loads(line)
            assert "traceback" not in line.lower(), line
            if told.get("event") == "request":
                yield told["method"], told["path"]

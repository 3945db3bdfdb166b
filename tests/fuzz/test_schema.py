"""schemathesis against the real server: whatever the document allows or forbids, no 5xx, no surprise.

FUZZ_CASES: cases an operation. `make fuzz-api` has thousands, and another seed each time.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

from api import csv, ok, serving

HERE = Path(__file__).parent
CASES = int(os.environ.get("FUZZ_CASES", "0"))
SEED = random.randrange(1 << 30) if CASES else 1
PATIENCE_S = 3600.0 if CASES else 300.0


def test_no_answer_is_outside_the_document(databases, template, tmp_path):
    files = [csv(tmp_path / f"{number}.csv", 10 * number, dirty=0.1) for number in (1, 2, 3)]
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
        # It did what it was asked to: hundreds of cases, and every phase.
        assert re.search(r"Stateful", done.stdout)
        ok(api.get("/customers"))
        assert api.root.get("/health/ready").status_code == 200
        assert not [line for line in api.log if "Traceback" in line]

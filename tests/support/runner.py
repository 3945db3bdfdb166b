"""A process that imports in child processes, which may kill themselves at a given moment.

Reads jobs as JSON lines on stdin, one at a time; forks for each, so that a child costs no start of
an interpreter; answers with its process number, and with how it ended. It holds no connection and
no thread of its own, so a child is like a process that was just started.

`call` is the name of a call of the driver that is disturbed, `kind` says how (`calls.py`). `batches` kills
right after a commit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from customer_panel._native import Batch
from customer_panel.errors import CustomerPanelError
from customer_panel.imports import Counts, Stop
from customer_panel.imports.engine import finish, indexes
from customer_panel.imports.engine.apply import Writer
from customer_panel.imports.engine.request import ImportRequest
from customer_panel.imports.engine.supervisor import run_import
from customer_panel.imports.job import sessions
from customer_panel.imports.model import Tuning
from customer_panel.imports.sources import opened
from customer_panel.sql import statement
from support.calls import Calls, kill_myself


def kill_after_batches(count: int) -> None:
    """Kills this process as soon as so many batches are committed."""
    apply, left, lock = Writer.apply, [count], threading.Lock()

    def counted(self: Writer, batch: Batch) -> Counts:
        counts = apply(self, batch)
        with lock:
            left[0] -= 1
            if not left[0]:
                kill_myself()
        return counts

    Writer.apply = counted  # type: ignore[method-assign]


def ask_to_stop(job: dict[str, Any]) -> None:
    """As a user does: by the signal `stop`, or for 0 by a request, if the import is claimed."""
    with psycopg.connect(job["dsn"], autocommit=True) as conn:
        row = conn.execute(
            "SELECT max(id) FROM imports WHERE status = 'RUNNING' AND epoch > 0"
        ).fetchone()
        asked = {"import_id": row and row[0], "requested": "PAUSED"}
        if job["stop"] or conn.execute(statement("ask_import"), asked).fetchone() is None:
            os.kill(os.getpid(), job["stop"] or signal.SIGTERM)


def work(job: dict[str, Any]) -> dict[str, Any]:
    stop = Stop()
    kind = job.get("kind", "kill-before")
    calls = Calls(job["dsn"], job.get("call"), kind, lambda: ask_to_stop(job))
    if "call" in job:
        calls.watch()
    if "portion" in job:
        finish.PORTION = job["portion"]
    if "gives_way" in job:
        indexes._build_together = lambda *_: False
    if "grace_s" in job:
        sessions.GRACE_S = job["grace_s"]
    if "batches" in job:
        kill_after_batches(job["batches"])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda number, _: stop.ask("PAUSED" if number == 2 else "INTERRUPTED")
        )
    began = time.monotonic()
    answer: dict[str, Any] = {"calls": calls.names}
    try:
        with opened(job["path"]) as source:
            request = ImportRequest(source=source, tuning=Tuning(**job.get("tuning", {})))
            result = run_import(request, job["dsn"], stop=stop)
    except CustomerPanelError as error:
        answer |= {"error": error.code, "message": error.message}
    except BaseException as error:
        answer |= {"error": type(error).__name__, "message": str(error)}
        if not calls.is_disturbed:
            raise  # the test fails with it
    else:
        answer["result"] = msgspec.to_builtins(result)
    finally:
        answer["is_disturbed"] = calls.is_disturbed
        answer["seconds"] = time.monotonic() - began
        Path(job["answer"]).write_text(json.dumps(answer))
    return answer


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            random.seed(job.get("seed"))
            work(job)
            os._exit(0)
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"exit": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()

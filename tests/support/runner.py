"""A process that imports in child processes, which may kill themselves at a given moment.

Reads jobs as JSON lines on stdin, one at a time; forks for each, so that a child costs no start of
an interpreter; answers with its process number, and with how it ended. It holds no connection and
no thread of its own, so a child is like a process that was just started.

A moment is a call of the driver: `moment` counts the statements, COPYs and commits of all threads,
and the child is killed before the n-th (`during_s` after it began). `batches` kills right after a commit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
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
from customer_panel.imports.model import Tuning
from customer_panel.imports.sources import opened


class Moments:
    """Counts the calls of the driver, and kills this process at one of them."""

    def __init__(self, number: int | None, during_s: float | None) -> None:
        self.number, self.during_s = number, during_s
        self.names: list[str] = []
        self._lock = threading.Lock()

    def pass_by(self, name: str) -> None:
        with self._lock:
            self.names.append(name)
            if len(self.names) != self.number:
                return
            if self.during_s is None:
                kill_myself()
            threading.Timer(self.during_s, kill_myself).start()

    def watch(self) -> None:
        """Counts every statement, COPY and commit from now on."""

        def watched(owner: Any, method: str, name: Callable[..., str]) -> None:
            original = getattr(owner, method)

            def call(self_: Any, *args: Any, **kwargs: Any) -> Any:
                self.pass_by(name(*args))
                return original(self_, *args, **kwargs)

            setattr(owner, method, call)

        def words(query: Any, *_: Any) -> str:
            text = query.decode() if isinstance(query, bytes) else str(query)
            return " ".join(text.split()[:4])

        watched(psycopg.Cursor, "execute", words)
        watched(psycopg.Cursor, "copy", words)
        watched(psycopg.Copy, "__exit__", lambda *_: "end of COPY")
        watched(psycopg.Connection, "commit", lambda *_: "commit()")
        watched(psycopg.Transaction, "__exit__", lambda *_: "COMMIT")


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


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


def work(job: dict[str, Any]) -> dict[str, Any]:
    moments = Moments(job.get("moment"), job.get("during_s"))
    if "moment" in job:
        moments.watch()
    if "portion" in job:
        finish.PORTION = job["portion"]
    if "gives_way" in job:
        indexes._build_together = lambda *_: False
    if "batches" in job:
        kill_after_batches(job["batches"])
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda number, _: stop.ask("PAUSED" if number == 2 else "INTERRUPTED")
        )
    began = time.monotonic()
    answer: dict[str, Any] = {"moments": moments.names}
    try:
        with opened(job["path"]) as source:
            request = ImportRequest(source=source, tuning=Tuning(**job.get("tuning", {})))
            result = run_import(request, job["dsn"], stop=stop)
    except CustomerPanelError as error:
        answer |= {"error": error.code, "message": error.message}
    except BaseException as error:  # the test fails with it
        answer |= {"error": type(error).__name__, "message": str(error)}
        raise
    else:
        answer["result"] = msgspec.to_builtins(result)
    finally:
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

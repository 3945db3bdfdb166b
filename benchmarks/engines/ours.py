"""Our import, in a process of its own so that its memory and processor time are its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from customer_panel.benchmarks.figures import Facts, Run
from customer_panel.benchmarks.place import Place
from customer_panel.imports.engine.request import Hooks, ImportRequest
from customer_panel.imports.engine.supervisor import run_import
from customer_panel.imports.model import ImportResult, Progress, Tuning
from customer_panel.imports.sources import opened

NAME = "customer-panel"
UNSAFE = "without safety"


class Request(msgspec.Struct):
    dsn: str
    file: str
    tuning: Tuning


class Answer(msgspec.Struct):
    result: ImportResult
    cpu_s: float
    phases: dict[str, float]  # seconds from the start to the first report of each phase


def load(place: Place, dsn: str, file: Path, tuning: Tuning | None = None) -> Run:
    """Imports `file`. The time is the import's own, without the VACUUM; `wall_s` is that of the process."""
    request = Request(dsn, str(file), tuning or Tuning())
    answer, facts = place.measured(lambda: _in_child(request))
    result = answer.result
    facts |= {
        "client_cpu_s": answer.cpu_s,
        "vacuum_s": result.maintenance_sec,
        "peak_rss_bytes": result.peak_rss_bytes,
        **_durations(answer),
    }
    for name in ("inserted", "updated", "unchanged"):
        facts[f"rows_{name}"] = getattr(result, f"rows_{name}")
    is_safe = request.tuning.is_safe
    return Run(engine=NAME if is_safe else UNSAFE, seconds=result.elapsed_sec, facts=facts)


def _in_child(request: Request) -> Answer:
    command = [sys.executable, "-m", "customer_panel.benchmarks.engines.ours"]
    done = subprocess.run(
        command, input=msgspec.json.encode(request), stdout=subprocess.PIPE, check=True
    )
    return msgspec.json.decode(done.stdout, type=Answer)


def _durations(answer: Answer) -> Facts:
    ends = [*list(answer.phases.values())[1:], answer.result.elapsed_sec]
    return {
        f"{phase}_s": max(0.0, end - begin)
        for (phase, begin), end in zip(answer.phases.items(), ends, strict=True)
        if phase not in ("maintenance", "done")
    }


def _main() -> None:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    phases: dict[str, float] = {}

    def on_progress(progress: Progress) -> None:
        phases.setdefault(progress.phase, progress.elapsed_sec)

    with opened(request.file) as source:
        wanted = ImportRequest(source=source, tuning=request.tuning)
        result = run_import(wanted, request.dsn, Hooks(on_progress=on_progress))
    times = os.times()
    sys.stdout.buffer.write(msgspec.json.encode(Answer(result, times.user + times.system, phases)))


if __name__ == "__main__":
    _main()

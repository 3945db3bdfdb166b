"""The result of an import or of a dry run, from its counts."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import Any

from customer_panel._native import Plan
from customer_panel.imports.model import Counts, ImportResult


def result_of(counts: Counts, plan: Plan, *, elapsed_sec: float, **others: Any) -> ImportResult:
    """`others` are the fields of ImportResult that neither counts, plan nor this process tell."""
    return ImportResult(
        rows_processed=counts.processed,
        rows_inserted=counts.inserted,
        rows_updated=counts.updated,
        rows_unchanged=counts.unchanged,
        rows_protected=counts.protected,
        rows_duplicate=counts.duplicate,
        rows_skipped=counts.skipped,
        warnings=counts.warnings,
        elapsed_sec=elapsed_sec,
        rate_rows_per_sec=counts.processed / elapsed_sec if elapsed_sec else 0.0,
        peak_rss_bytes=peak_rss_bytes(),
        mapping=tuple(plan.mapping),
        unmapped=tuple(plan.unmapped),
        **others,
    )


def peak_rss_bytes() -> int:
    """The most memory this process has had. Linux counts in KiB, macOS in bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # Unlike getrusage, this leaves out what the process that started us had: a fat parent's
        # memory counts as the child's until it calls exec.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

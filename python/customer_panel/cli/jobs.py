"""`customer-panel jobs`: the imports so far, and everything about one."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import rich_click

from customer_panel.errors import NoSuchImport, NotSteerable
from customer_panel.settings import Settings
from customer_panel.states import WAITING

if TYPE_CHECKING:
    from customer_panel.db.connect import AsyncConnection
    from customer_panel.imports.queries.jobs import Job

FIRST_REJECTS = 20
LOOK_S = 0.05  # between two checks of an import that was asked to stop
COUNTERS = ("inserted", "updated", "unchanged", "protected", "duplicate", "skipped", "pending")


@click.group(cls=rich_click.RichGroup)
def jobs() -> None:
    """The imports: list them, look at one, pause or cancel it."""


@jobs.command("list", cls=rich_click.RichCommand)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON array on stdout.")
def list_jobs(limit: int, as_json: bool) -> None:
    """The newest imports, newest first."""
    from customer_panel.db.database import database
    from customer_panel.db.query import run_async
    from customer_panel.imports.queries import jobs

    with database(Settings.load()) as dsn:
        listed, _ = run_async(dsn, lambda conn: jobs.page(conn, 1, limit), part="jobs")
    found = [_shown(job) for job in listed]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    if not found:
        click.echo("no imports yet: customer-panel import FILE")
        return
    head = ("id", "status", "rows", "inserted", "updated", "skipped", "seconds", "started")
    click.echo(_row(head, "file"))
    for job in found:
        counts = (f"{job[f'rows{name}']:,}" for name in ("Processed", "Inserted", "Updated"))
        numbers = (*counts, f"{job['rowsSkipped']:,}", f"{job['elapsedSec']:,.1f}")
        values = (str(job["jobId"]), job["status"], *numbers, _moment(job["startedAt"]))
        click.echo(_row(values, job["file"] or "a stream"))


@jobs.command(cls=rich_click.RichCommand)
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option(
    "--rejects",
    metavar="OUT.csv",
    type=click.Path(path_type=Path),
    help="Also write all rejects and warnings into a file.",
)
def show(job_id: int, as_json: bool, rejects: Path | None) -> None:
    """One import: its columns, counts, times, lanes, the first of its rejects, and how to go on."""
    from customer_panel.cli.rejects import Target
    from customer_panel.db.database import database

    with database(Settings.load()) as dsn:
        job = _whole(dsn, job_id)
        if rejects is not None:
            with Target(rejects) as target:
                count = target.fill(dsn, job_id)
            click.echo(f"{count:,} rejects and warnings: {rejects}", err=True)
    if as_json:
        click.echo(json.dumps(job, ensure_ascii=False))
        return
    for line in _described(job):
        click.echo(line)


@jobs.command(cls=rich_click.RichCommand)
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
def pause(job_id: int) -> None:
    """Pause a running import at the next batch border, whoever runs it; importing its file again goes on."""
    _steer(job_id, "PAUSED")


@jobs.command(cls=rich_click.RichCommand)
@click.argument("job_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
def cancel(job_id: int) -> None:
    """Cancel an import for good; the rows it wrote stay."""
    _steer(job_id, "CANCELLED")


def _steer(job_id: int, wanted: Literal["PAUSED", "CANCELLED"]) -> None:
    """Asks the runner and waits until it has stopped; cancels here if no runner has the import."""
    from customer_panel.db.database import database
    from customer_panel.db.query import run_async
    from customer_panel.imports.engine.ending import cancel_idle
    from customer_panel.imports.queries import jobs
    from customer_panel.imports.stop import Stop

    async def ask_runner(conn: AsyncConnection) -> None:
        if not await jobs.ask(conn, job_id, wanted):
            return
        while (await _read(conn, job_id)).status == "RUNNING":
            await asyncio.sleep(LOOK_S)

    async def cancel_beside(conn: AsyncConnection) -> bool:
        """While another import runs; its end puts the table in order."""
        return await jobs.is_running(conn) and await jobs.cancel_beside(conn, job_id)

    async def read(conn: AsyncConnection) -> Job:
        return await _read(conn, job_id)

    with database(Settings.load()) as dsn:
        job = run_async(dsn, read, part="jobs")
        if wanted == "CANCELLED" and job.is_waiting:
            if not run_async(dsn, cancel_beside, part="jobs"):
                cancel_idle(dsn, job_id, Stop())
        elif job.status == "RUNNING":
            run_async(dsn, ask_runner, part="jobs")
        else:
            raise NotSteerable(f"import {job_id} is {job.status} and cannot be {wanted}")
        job = run_async(dsn, read, part="jobs")
    counts = job.snapshot.counts
    written = counts.inserted + counts.updated
    click.echo(f"import {job_id} is {job.status}; it has written {written:,} rows")


# -- reading --------------------------------------------------------------------------------------


async def _read(conn: AsyncConnection, job_id: int) -> Job:
    """Raises NoSuchImport."""
    from customer_panel.imports.queries import jobs

    try:
        return await jobs.one(conn, job_id)
    except NoSuchImport:
        raise NoSuchImport(f"there is no import {job_id}") from None


def _shown(job: Job) -> dict[str, Any]:
    """A job as a JSON object, with the names of `import --json`."""
    snapshot = job.snapshot
    counts = {
        f"rows{name.capitalize()}": getattr(snapshot.counts, name)
        for name in ("processed", *COUNTERS)
    }
    return {
        "jobId": snapshot.job_id,
        "status": snapshot.status,
        "phase": snapshot.phase,
        "source": snapshot.source,
        "file": snapshot.file_path,
        "fileBytes": snapshot.bytes_total,
        **counts,
        "warnings": snapshot.counts.warnings,
        "bytesRead": snapshot.bytes_read,
        "elapsedSec": snapshot.elapsed_sec,
        "maintenanceSec": snapshot.maintenance_sec,
        "rateRowsPerSec": snapshot.rate_rows_per_sec,
        "startedAt": snapshot.started_at.isoformat(),
        "completedAt": snapshot.completed_at and snapshot.completed_at.isoformat(),
        "error": snapshot.error,
    }


def _whole(dsn: str, job_id: int) -> dict[str, Any]:
    """A job with its columns, its lanes and the first of its rejects. Raises NoSuchImport."""
    from customer_panel.cli.summary import camel
    from customer_panel.db.connect import connect
    from customer_panel.db.query import run_async
    from customer_panel.imports.job import ledger
    from customer_panel.imports.queries import rejects

    async def read(conn: AsyncConnection) -> tuple[Job, list[tuple[Any, ...]]]:
        records, _ = await rejects.page(conn, job_id, FIRST_REJECTS)
        return await _read(conn, job_id), records

    job, records = run_async(dsn, read, part="jobs")
    with connect(dsn, part="jobs") as conn:
        row, lanes = ledger.find(conn, job_id), ledger.lanes_of(conn, job_id)
    assert row is not None
    used = {header for header, _ in row["mapping"]}
    return {
        **_shown(job),
        "delimiter": row["delimiter"],
        "dateOrder": row["options"].get("date_order"),
        "blank": row["options"].get("blank"),
        "mapping": [{"header": h, "field": camel(field)} for h, field in row["mapping"]],
        "unmapped": [header for header in row["headers"] if header not in used],
        "lanes": [
            {"lane": lane.lane, "doneTo": lane.done_to, "rowsProcessed": lane.counts.processed}
            for lane in lanes
        ],
        "rejects": [dict(zip(rejects.COLUMNS, record, strict=True)) for record in records],
    }


# -- showing --------------------------------------------------------------------------------------


def _row(values: tuple[str, ...], last: str) -> str:
    number, status, *counts, seconds, started = values
    numbers = "".join(f"{count:>13}" for count in counts)
    return f"{number:>6}  {status:<11}{numbers}{seconds:>10}  {started:<16}  {last}"


def _moment(text: str) -> str:
    """To the minute, in local time."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _described(job: dict[str, Any]) -> list[str]:
    from customer_panel.cli.bar import size_text, time_text

    size = "" if job["fileBytes"] is None else f" of {size_text(job['fileBytes'])}"
    lines = [
        click.style(f"Import {job['jobId']}: {job['status']} ({job['phase']})", bold=True),
        f"  file         {job['file'] or 'a stream'}",
        f"  source       {job['source']}",
        f"  started      {_moment(job['startedAt'])}",
        f"  read         {size_text(job['bytesRead'])}{size}",
        f"  time         {time_text(job['elapsedSec'])}",
        f"  maintenance  {time_text(job['maintenanceSec'])}",
        f"  rate         {job['rateRowsPerSec']:,.0f} rows/s",
    ]
    if job["error"]:
        lines.append(f"  error        {job['error']}")
    lines += ["", f"  rows read  {job['rowsProcessed']:>15,}"]
    lines += [f"  {name:<11}{job[f'rows{name.capitalize()}']:>15,}" for name in COUNTERS]
    lines += [f"  warnings   {job['warnings']:>15,}", ""]
    lines += [f"  column {pair['header']!r} is {pair['field']}" for pair in job["mapping"]]
    lines += [f"  column {header!r} is not used" for header in job["unmapped"]]
    lines.append("")
    lines += [
        f"  lane {lane['lane']}: {lane['rowsProcessed']:,} rows, done to byte {lane['doneTo']:,}"
        for lane in job["lanes"]
    ]
    for reject in job["rejects"]:
        where = f" in {reject['field']}" if reject["field"] else ""
        lines += [
            "",
            f"  line {reject['line']:,}: {reject['severity']} {reject['code']}{where}",
            f"    {reject['message']}",
            f"    {_excerpt(reject['raw'])}",
        ]
    if job["rowsSkipped"] + job["warnings"] > len(job["rejects"]):
        lines += ["", f"All of it: customer-panel jobs show {job['jobId']} --rejects rejects.csv"]
    if job["status"] in WAITING and job["file"]:
        lines += [
            "",
            f"To go on: customer-panel import {job['file']}",
            f"To cancel it and begin again: customer-panel import {job['file']} --restart",
        ]
    return lines


def _excerpt(raw: str, width: int = 110) -> str:
    """One printable line of a record, which may contain anything: terminal escape sequences too."""
    line = "".join(char if char.isprintable() else "·" for char in raw.rstrip("\r\n")[:width])
    return line + ("…" if len(raw.rstrip("\r\n")) > width else "")

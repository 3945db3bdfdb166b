"""The result of an import, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from customer_panel.cli.bar import size_text, time_text
from customer_panel.customer import BY_NAME
from customer_panel.errors import CustomerPanelError

if TYPE_CHECKING:
    from customer_panel.imports import ImportResult

LINE = 100  # characters: most terminals show this many, or wrap once

# What each outcome means.
MEANINGS = {
    "inserted": "new customers",
    "updated": "customers whose values changed",
    "unchanged": "as the database has them already",
    "protected": "edited or deleted by hand: kept so",
    "duplicate": "further rows of a customer, merged into its first",
    "skipped": "set aside, each with a reason",
}


def result_json(result: ImportResult, *, is_dry: bool = False) -> str:
    """One object; fractions of a second to the millisecond."""
    shown: dict[str, Any] = msgspec.to_builtins(result)
    shown = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in shown.items()
    }
    shown["mapping"] = [
        {"header": header, "field": camel(field)} for header, field in result.mapping
    ]
    shown["isDryRun"] = is_dry
    return json.dumps(shown, ensure_ascii=False)


def error_json(error: CustomerPanelError) -> str:
    """What failed, as one object with the error's stable code."""
    shown = {"code": error.code, "message": error.message, "hint": error.hint}
    return json.dumps({"status": "FAILED", "error": shown}, ensure_ascii=False)


def show(result: ImportResult, file: Path, rejects: Path | None, *, is_dry: bool) -> None:
    """The summary, on stdout."""
    click.echo(_headline(result, file, is_dry=is_dry))
    click.echo()
    click.echo(f"  {'rows read':<12}{result.rows_processed:>15,}   {size_text(result.bytes_read)}")
    for name, meaning in MEANINGS.items():
        count: int = getattr(result, f"rows_{name}")
        _line(name, f"{count:,}", meaning, is_dim=not count)
    if result.warnings:
        _line("warnings", f"{result.warnings:,}", "values left empty, such as an unreadable date")
    click.echo()
    maintenance = result.maintenance_sec
    after = f"and {time_text(maintenance)} of maintenance" if maintenance >= 0.05 else ""
    _line("time", time_text(result.elapsed_sec), after)
    _line("rate", f"{result.rate_rows_per_sec:,.0f}", "rows/s")
    _line("memory", size_text(result.peak_rss_bytes), "at most, in this process")
    click.echo()
    for text in _columns(result):
        click.echo(text)
    for text in result.notes:
        click.echo(f"Note: {text}")
    for text in _next_steps(result, rejects, is_dry=is_dry):
        click.echo(text)


def camel(field: str) -> str:
    """The public name of a column; the pseudo field full_name has one too."""
    return BY_NAME[field].camel if field in BY_NAME else "fullName"


def _headline(result: ImportResult, file: Path, *, is_dry: bool) -> str:
    if is_dry:
        return click.style(f"Dry run of {file}: nothing was written", bold=True)
    again = ", after an interruption" if result.is_resumed else ""
    feed = f' (source "{result.source}")' if result.source != "main" else ""
    title = click.style(f"Import {result.job_id} of {file}{feed} is done", bold=True)
    return f"{title}{again}"


def _line(name: str, value: str, meaning: str, *, is_dim: bool = False) -> None:
    click.echo(click.style(f"  {name:<12}{value:>15}   {meaning}".rstrip(), dim=is_dim))


def _columns(result: ImportResult) -> list[str]:
    lines = _wrapped("Columns:", [f"{name} -> {camel(field)}" for name, field in result.mapping])
    if result.unmapped:
        lines += _wrapped("Not used:", list(result.unmapped))
        lines.append('  (--map "Header=field" takes a column in)')
    return lines


def _wrapped(title: str, items: list[str]) -> list[str]:
    """The items on lines of at most 100 characters; no item is split."""
    lines = [title]
    for place, item in enumerate(items):
        part = f" {item}" + ("," if place + 1 < len(items) else "")
        if len(lines[-1]) + len(part) > LINE:
            lines.append(" ")
        lines[-1] += part
    return lines


def _next_steps(result: ImportResult, rejects: Path | None, *, is_dry: bool) -> list[str]:
    findings = result.rows_skipped + result.warnings
    if rejects is not None:
        return [f"Rejects and warnings: {rejects} ({findings:,})"]
    if not findings or is_dry:
        return []
    return [
        "",
        f"To see what was set aside or left empty: customer-panel jobs show {result.job_id}",
        f"All of it as a file: customer-panel jobs show {result.job_id} --rejects rejects.csv",
    ]

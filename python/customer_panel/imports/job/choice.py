"""Which of the imports that have not ended a request concerns, and in which words they are named."""

from __future__ import annotations

from customer_panel.db.query import Row
from customer_panel.errors import MappingError
from customer_panel.imports.job import ledger
from customer_panel.imports.model import DEFAULT_SOURCE, Options
from customer_panel.imports.sources import Source


def own(jobs: list[Row], source: Source, options: Options) -> Row | None:
    """The open import of this file and feed; if there are several, the newest that is surely of it.

    Without a feed in `options` any feed will do: the same command again goes on with it.
    """
    of_feed = [job for job in jobs if options.source in (None, job["source"])]
    same = [job for job in of_feed if _is_same_file(job, source)]
    same_path = [job for job in of_feed if _has_path(job, source)]
    found = same or same_path
    return found[-1] if found else None


def unfinished(jobs: list[Row], own: Row | None, options: Options) -> list[Row]:
    """The other open imports of the feed, oldest first; none that began after `own`."""
    feed = own["source"] if own is not None else options.source or DEFAULT_SOURCE
    return [job for job in jobs if job["source"] == feed and (own is None or job["id"] < own["id"])]


class Replaced(Exception):
    """The job cannot go on and is cancelled, for the reason that is its text.

    is_same_file: only the way in which the file is read is another one.
    """

    def __init__(self, reason: str, job: Row, *, is_same_file: bool) -> None:
        super().__init__(reason)
        self.job, self.is_same_file = job, is_same_file


def obstacle(job: Row, options: Options) -> tuple[MappingError, Replaced] | None:
    """Why the job cannot go on with these options, in this version: as an error for a caller who wants
    nothing else, and for one who then wants a new import.
    """
    if differences := ledger.differences(job, options):
        reason = f"it cannot go on with {', '.join(differences)}"
        hint = "Without the option it goes on; --restart cancels it."
        error = MappingError(f"{named(job)}: {reason}", hint=hint)
        return error, Replaced(reason, job, is_same_file=False)
    if ledger.has_other_rules(job):
        reason = "it was begun by a version of this program that reads values otherwise"
        return MappingError(f"{named(job)}: {reason}"), Replaced(reason, job, is_same_file=True)
    return None


def named(job: Row) -> str:
    return f"import {job['id']} of {job['file_path'] or 'a stream'}"


def overtaken(job: Row) -> str:
    """Why an import does not go on that has a `newer_id`."""
    return (
        f"{named(job)} was overtaken by import {job['newer_id']} of the same feed, which is newer:"
        " its rows would replace newer values"
    )


def _has_path(job: Row, source: Source) -> bool:
    return source.path is not None and job["file_path"] == str(source.path)


def _is_same_file(job: Row, source: Source) -> bool:
    """Whether it is the file by its inode. An inode is used again when its file is deleted: under
    another name it counts only if there is something to compare, or nothing has changed.
    """
    if source.path is None or (job["file_device"], job["file_inode"]) != (
        source.device,
        source.inode,
    ):
        return False
    return (
        _has_path(job, source)
        or job["done_to"] > job["data_start"]
        or job["file_mtime_ns"] == source.mtime_ns
    )

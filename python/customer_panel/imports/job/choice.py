"""Which of the imports that have not ended a request concerns, and in which words they are named."""

from __future__ import annotations

from customer_panel.db.query import Row
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

"""The bytes of an import: a file that can be read again, or a stream that cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from customer_panel import _native
from customer_panel._native import Plan, PlanError
from customer_panel.errors import (
    CustomerPanelError,
    EngineBroken,
    MappingError,
    NotAFile,
    SourceEmpty,
    SourceError,
    SourceNotFound,
    SourceUnreadable,
    Stopped,
)
from customer_panel.imports.model import Buffers, Options

HEAD_BYTES = (1 << 20) + 4  # the longest header that is accepted, and a byte order mark
PIECE_BYTES = 1 << 20  # of a buffer or a file object, copied at once


# A file system notes times by a clock that ticks: a write in the tick of the write before it changes
# no time. Linux ticks every 1 to 10 ms, or finer; FAT every 2 s.
TICK_NS, COARSE_TICK_NS = 100_000_000, 2_000_000_000


class Stamp(NamedTuple):
    """What changes with the content of a file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    is_fresh: bool  # the file was changed so shortly before that the next change may look the same

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        is_coarse = found.st_ctime_ns % 10_000_000 == 0
        age_ns = time.time_ns() - found.st_ctime_ns
        is_fresh = age_ns < (COARSE_TICK_NS if is_coarse else TICK_NS)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, is_fresh)

    def proves(self, later: Stamp) -> bool:
        """Whether the file has not changed between this stamp and `later`."""
        return not self.is_fresh and self[:3] == later[:3]


class FileSource:
    """A regular file, opened once: this process reads all of it, resumes included, by one descriptor."""

    failure: BaseException | None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises SourceNotFound, NotAFile or SourceUnreadable."""
        absolute = Path(path).absolute()
        self._open = lambda: _open(absolute)
        self._take(_open(path), absolute, os.fspath(path))

    @classmethod
    def opened_by(cls, opens: Callable[[], int], path: Path) -> FileSource:
        """The file that `opens` opens, named `path`. The source owns the descriptor.

        Raises what `opens` raises, NotAFile or SourceUnreadable.
        """
        source = cls.__new__(cls)
        source._open = opens
        source._take(opens(), path, os.fspath(path))
        return source

    def renew(self) -> None:
        """Takes the file that has the name now, from its start. Raises as opening does, and then has
        the old one still.
        """
        old = self.descriptor
        self._take(self._open(), self.path, os.fspath(self.path))
        os.close(old)

    def seen_now(self) -> tuple[int, ...]:
        """What tells one state of the file that has the name now from another. Raises as opening
        does.
        """
        descriptor = self._open()
        try:
            found = os.fstat(descriptor)
        except OSError as error:
            raise SourceUnreadable(f"the file cannot be read: {error.strerror}") from error
        finally:
            os.close(descriptor)
        return (found.st_dev, found.st_ino, *Stamp.of(found)[:3])

    def _take(self, descriptor: int, path: Path, shown: str) -> None:
        try:
            found = os.fstat(descriptor)
            _require_file(found.st_mode, shown)
            stamp = Stamp.of(found)
            native = _native.Source.from_file(descriptor)
            with reading(self, shown):
                head = native.head(HEAD_BYTES)
        except BaseException:
            os.close(descriptor)
            raise
        self.path, self.descriptor, self.stamp, self.head = path, descriptor, stamp, head
        self.native = native
        self.size, self.device, self.inode = found.st_size, found.st_dev, found.st_ino
        self.mtime_ns = found.st_mtime_ns
        self.is_whole_in_head = len(self.head) == found.st_size

    name = property(lambda self: os.fspath(self.path))
    _open: Callable[[], int]

    def stamp_now(self) -> Stamp:
        """Raises SourceUnreadable."""
        try:
            return Stamp.of(os.fstat(self.descriptor))
        except OSError as error:
            raise SourceUnreadable(f"the file cannot be read: {error.strerror}") from error

    def size_now(self) -> int:
        """Raises SourceUnreadable."""
        return self.stamp_now().size

    def stop(self) -> None:
        """Ends whatever reads the file, now and later."""
        self.native.stop()

    def close(self) -> None:
        del self.native  # it has a descriptor of its own
        os.close(self.descriptor)


class StreamSource:
    """Buffers from a file object or an iterable, handed over by a thread of their own.

    That thread is the only one that calls the caller's code. If that code never returns, the thread
    stays in it, as a daemon; nothing waits for it.
    """

    path = None
    size = device = inode = mtime_ns = None
    name = "a stream"

    def __init__(self, buffers: Buffers) -> None:
        """Raises SourceError for what gives no buffers. Does not wait for the first one."""
        if not hasattr(buffers, "read") and not isinstance(buffers, Iterable):
            raise SourceError(
                "a source is a path, a binary file object, or an iterable of buffers,"
                f" not {type(buffers).__name__}"
            )
        self.failure: BaseException | None = None
        self._feed = _native.Feed()
        self.native = _native.Source.from_feed(self._feed)
        self._head: bytes | None = None
        threading.Thread(target=self._run, args=(buffers,), name="cp-feed", daemon=True).start()

    @property
    def head(self) -> bytes:
        """Waits for the start. Raises SourceError, or Stopped after `stop`."""
        if self._head is None:
            with reading(self):
                self._head = self.native.head(HEAD_BYTES)
        return self._head

    @property
    def is_whole_in_head(self) -> bool:
        return len(self.head) < HEAD_BYTES

    def _run(self, buffers: Buffers) -> None:
        error: str | None = "the thread that reads it has died"
        try:
            for piece in _pieces(buffers):
                if not self._feed.push(piece):
                    break
            error = None
        # Whatever ends the caller's iterator early ends the import like a failed read; also what is
        # no Exception, such as SystemExit.
        except BaseException as failure:
            self.failure = failure
            error = f"{type(failure).__name__}: {failure}"
        finally:
            self._feed.close(error)

    def size_now(self) -> None:
        return None

    def stop(self) -> None:
        """Ends whatever reads the stream or waits for it, now and later."""
        self.native.stop()

    def close(self) -> None:
        # The thread is not joined: it may wait in the caller's iterator. It ends when that returns.
        self.native.stop()


Source = FileSource | StreamSource


@contextlib.contextmanager
def reading(source: Source, name: str | None = None) -> Iterator[None]:
    """What ends a native reader early, as an error for the caller: SourceUnreadable or another
    SourceError, Stopped, or EngineBroken. `name`: of a source that has none yet.
    """
    try:
        yield
    except OSError as error:
        if isinstance(source.failure, CustomerPanelError):
            raise source.failure from None
        raise SourceUnreadable(
            f"{name or source.name} cannot be read: {error.strerror or error}"
        ) from (source.failure or error)
    except _native.Stopped:
        raise Stopped("reading was stopped before the end of the source") from None
    except _native.Broken as error:
        raise EngineBroken from error


@contextlib.contextmanager
def opened(source: str | os.PathLike[str] | Buffers) -> Iterator[Source]:
    """The source of an import, closed after `with`. Raises SourceError."""
    if isinstance(source, str | os.PathLike):
        found: Source = FileSource(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        raise SourceError("bytes are not a source", hint="Wrap them: io.BytesIO(...) or [buffer].")
    else:
        found = StreamSource(source)
    try:
        yield found
    finally:
        found.close()


def planned(source: Source, options: Options) -> Plan:
    """Which column is which field. Raises MappingError or SourceEmpty; no job exists yet then."""
    try:
        plan = Plan.from_header(
            source.head,
            delimiter=options.delimiter,
            overrides=list(options.mapping),
            date_order=options.date_order,
        )
    except PlanError as error:
        code, message = error.args
        if code == "no_header":
            raise SourceEmpty(f"{source.name} is empty: it has no header line") from None
        raise MappingError(message) from None
    except ValueError as error:
        raise MappingError(str(error)) from None
    if source.is_whole_in_head and not source.head[plan.data_start :].strip(b"\r\n"):
        raise SourceEmpty(
            f"{source.name} has a header and no rows",
            hint="Nothing was imported; check how the file is made.",
        )
    return plan


def _open(path: str | os.PathLike[str]) -> int:
    """Raises SourceNotFound or SourceUnreadable."""
    shown = os.fspath(path)
    try:
        # Without O_NONBLOCK the open of a FIFO would wait for a writer.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFound(f"no such file: {shown}") from None
    except ValueError as error:
        raise SourceNotFound(f"not a path: {error}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise SourceNotFound(f"no such file: the name is too long: {shown[:60]}…") from None
        raise SourceUnreadable(f"{shown} cannot be opened: {error.strerror}") from None


def _require_file(mode: int, shown: str) -> None:
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise NotAFile(f"{shown} is {kind}")


def _pieces(buffers: Buffers) -> Iterator[bytes]:
    """The bytes of a source, a mebibyte at once but for what lies in `bytes` already."""
    read = getattr(buffers, "read", None)
    if read is None:
        for buffer in buffers:
            yield from _slices(buffer)
        return
    while True:
        buffer = read(PIECE_BYTES)
        if buffer is None:
            raise SourceError(
                "the file object has no bytes yet, and does not wait for them",
                hint="Make it blocking: os.set_blocking(file.fileno(), True).",
            )
        is_end = True
        for piece in _slices(buffer):
            is_end = False
            yield piece
        if is_end:
            return


def _slices(buffer: bytes | bytearray | memoryview) -> Iterator[bytes]:
    if isinstance(buffer, bytes):
        if buffer:
            yield buffer
        return
    if not isinstance(buffer, bytearray | memoryview):
        raise SourceError(
            f"a source gives bytes, not {type(buffer).__name__}",
            hint="Open the file in binary mode: open(path, 'rb').",
        )
    with memoryview(buffer) as view:
        if view.nbytes == 0:
            return
        if view.ndim != 1:
            # Its parts cannot be sliced.
            view = memoryview(view.tobytes())
        step = max(1, PIECE_BYTES // view.itemsize)
        for at in range(0, len(view), step):
            yield view[at : at + step].tobytes()

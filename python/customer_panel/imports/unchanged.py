"""Whether a file is still the one that was read.

Its size and times say whether it may have changed. Then all that was read is hashed again and
compared with the hashes that were made while it was read: so what has been read is the content that
the file had at one moment, however often it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from customer_panel._native import Batch, verify
from customer_panel.errors import SourceChanged
from customer_panel.imports.sources import FileSource, Source, reading
from customer_panel.imports.stop import Stop, StopRequested

BLOCK_BYTES = Batch.BLOCK_BYTES
# How often an import goes on when a file has grown while it was read to its end. A log that grows
# for ever must not keep it from its end.
MOST_GROWTHS = 3

Read = tuple[list[tuple[int, int]], int, int]  # the fourth value of native `Pipeline.outcome`


class Unchanged:
    """The hashes of all that was read of one source, by this run and by earlier ones. Knows nothing
    of a stream: each of its bytes is read once.
    """

    def __init__(
        self, source: Source, stop: Stop | None = None, written: Callable[[], int] | None = None
    ) -> None:
        """`written`: how many rows the import has written, for the text of SourceChanged."""
        self._file = source if isinstance(source, FileSource) else None
        self._stop = stop or Stop()
        self._written = written
        # Taken before the first byte was read.
        self._stamp = None if self._file is None else self._file.stamp
        self._blocks: dict[int, int] = {}
        self._tails: dict[int, int] = {}

    def expect(
        self, blocks: Iterable[tuple[int, int]], tails: Iterable[tuple[int, int | None]]
    ) -> None:
        """Adds hashes: of blocks by number, and of the bytes from the last whole block to an offset.

        Raises SourceChanged if another reading has seen other bytes there.
        """
        for number, block_hash in blocks:
            if self._blocks.setdefault(number, block_hash) != block_hash:
                raise self._changed(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES, is_read=True)
        for to, tail_hash in tails:
            if tail_hash is not None and self._tails.setdefault(to, tail_hash) != tail_hash:
                raise self._changed(to - to % BLOCK_BYTES, to, is_read=True)

    def compare(self, least: int) -> None:
        """Compares what earlier runs have read with the file, which had `least` bytes then.

        Raises SourceChanged, SourceUnreadable, StopRequested.
        """
        if self._file is not None:
            self._compare(least, self._file.stamp.size, is_read=False)

    def passed(self, read: Read) -> None:
        """Adds what a pass has read, and compares it if the file has been touched.

        Raises SourceChanged, SourceUnreadable, StopRequested.
        """
        blocks, to, tail_hash = read
        if self._file is not None and to:
            self.expect(blocks, [(to, tail_hash)])
            self.check()

    def check(self) -> int | None:
        """Compares all that was read if the file has been touched since this was done last; returns
        the bytes that it has now, None for a stream.

        Raises SourceChanged, SourceUnreadable, StopRequested.
        """
        if self._file is None or self._stamp is None:
            return None
        # Before the comparison: what is changed during it counts as a touch the next time.
        now = self._file.stamp_now()
        if not self._stamp.proves(now):
            self._compare(self._stamp.size, now.size, is_read=True)
            self._stamp = now
        return now.size

    def _compare(self, least: int, size: int, *, is_read: bool) -> None:
        assert self._file is not None
        with reading(self._file):
            span = verify(self._file.native, self._blocks, self._tails, self._obey_stop)
        if span is None and size < least:
            # All that was read is there, but a file that shrinks is being written anew.
            span = size, least
        if span is not None:
            raise self._changed(*span, is_read=is_read)

    def _obey_stop(self) -> None:
        if self._stop.is_asked():
            raise StopRequested

    def _changed(self, low: int, high: int, *, is_read: bool) -> SourceChanged:
        text = f"file changed between byte {low} and {high}"
        if is_read:
            text += " while it was read"
        if self._written is not None:
            text += f"; the {self._written()} rows that were written stay"
        return SourceChanged(text, span=(low, high))

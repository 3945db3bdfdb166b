"""The rejects and warnings of an import as a CSV file."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from customer_panel.errors import TargetUnwritable


class Target:
    """OUT.csv: opened before the import begins, and under its name only when it is complete.

    Replaces an older file of that name, but never the file to import.
    """

    def __init__(self, out: Path, source: Path | None = None) -> None:
        """Raises TargetUnwritable."""
        self.out = out
        if source is not None and _is_same(out, source):
            raise TargetUnwritable(
                f"{out} is the file to import", hint="Name another file for the rejects."
            )
        # A pipe or /dev/stdout cannot be replaced, only written to.
        self._is_replaced = not out.exists() or out.is_file()
        self._path = out.with_name(f"{out.name}.part") if self._is_replaced else out
        try:
            self._file: IO[str] = self._path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise TargetUnwritable(f"{out} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._is_replaced:
            self._path.unlink(missing_ok=True)

    def fill(self, dsn: str, import_id: int) -> int:
        """Writes the rejects and warnings of the import in file order, and returns their number.

        Raises TargetUnwritable. Memory does not grow with that number.
        """
        from customer_panel.db.connect import AsyncConnection
        from customer_panel.db.query import run_async
        from customer_panel.imports.queries.rejects import COLUMNS, every

        rows = csv.writer(self._file, lineterminator="\n")

        async def write(conn: AsyncConnection) -> int:
            count = 0
            async for records in every(lambda: contextlib.nullcontext(conn), import_id):
                rows.writerows(records)
                count += len(records)
            return count

        try:
            rows.writerow(COLUMNS)
            count = run_async(dsn, write, part="rejects")
            self._file.close()
            if self._is_replaced:
                self._path.replace(self.out)
        except OSError as error:
            raise TargetUnwritable(f"{self.out} cannot be written: {error.strerror}") from None
        return count


def _is_same(out: Path, source: Path) -> bool:
    with contextlib.suppress(OSError):
        return out.samefile(source)
    return False

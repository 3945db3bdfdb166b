"""Opens files beneath the folders that imports may read, and nothing else.

A path could be replaced between a check and the open. So the open comes first: the kernel resolves
the path beneath the root's descriptor, and the checks are made on the opened file.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from customer_panel.errors import NotAFile, OutsideRoots, SourceNotFound, SourceUnreadable
from customer_panel.imports.sources import FileSource

# Without O_NONBLOCK the open of a FIFO would wait for a writer. O_NOCTTY: a terminal must not become
# the controlling terminal of this process.
FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# O_PATH: a folder that we may pass through need not be one that we may list.
FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_DIRECTORY
OPENAT2 = 437  # the same on every architecture of Linux
RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH = 0x02, 0x08
# The kernel returns EAGAIN when a folder is renamed while it resolves ".." in the target of a link.
RACES = 1000


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(roots: Sequence[Path], path: str | os.PathLike[str]) -> FileSource:
    """The regular file `path` beneath one of `roots`; what was checked is the descriptor that is read.

    A relative path is looked for in the working folder, then in each root. Raises OutsideRoots for
    a path that is not beneath a root, with the same message whether it exists or not; else
    SourceNotFound, NotAFile or SourceUnreadable.
    """
    spelled = os.fspath(path)
    try:
        is_path = spelled != "" and b"\0" not in os.fsencode(spelled)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise SourceNotFound("not the path of a file: it is empty, or holds what no name may hold")
    failures: list[OutsideRoots | SourceNotFound | NotAFile | SourceUnreadable] = []
    for root, names in _places(roots, spelled):
        try:
            return FileSource.opened_by(
                functools.partial(_opened, root, names), root.joinpath(*names)
            )
        except (OutsideRoots, SourceNotFound, NotAFile, SourceUnreadable) as error:
            failures.append(error)
    if not failures:
        raise OutsideRoots
    # Of several errors, the most useful is that of a place where something was found.
    raise next((error for error in failures if not isinstance(error, SourceNotFound)), failures[0])


def _places(roots: Sequence[Path], spelled: str) -> Iterator[tuple[Path, list[str]]]:
    """Each root that the path may be beneath, and the names below it. Looks at the text of the path
    only, `..` included: nothing outside of a root is touched.
    """
    bases = [Path()] if Path(spelled).is_absolute() else [Path.cwd(), *roots]
    seen: set[tuple[Path, Path]] = set()
    for base in bases:
        whole = Path(os.path.normpath(base / spelled))
        for root in roots:
            # A root may be a link: a path may begin with either of its names.
            for top in (Path(os.path.normpath(root)), Path(os.path.realpath(root))):
                if (
                    whole.is_relative_to(top)
                    and (root, below := whole.relative_to(top)) not in seen
                ):
                    seen.add((root, below))
                    yield root, list(below.parts)


def _opened(root: Path, names: list[str]) -> int:
    shown = root.joinpath(*names)
    try:
        folder = os.open(root, FOLDER)
    except OSError:
        # A missing root gives the same error as a path outside of all roots.
        raise OutsideRoots from None
    try:
        descriptor = _resolved(folder, names or ["."])
    except OSError as error:
        raise _explained(error, shown) from None
    finally:
        os.close(folder)
    try:
        # An audit hook gets the name that the kernel has for the file, before a byte is read.
        sys.audit("open", _name_of(descriptor) or os.fspath(shown), "r", FILE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _resolved(folder: int, names: list[str]) -> int:
    if sys.platform == "linux":
        try:
            return _by_kernel(folder, "/".join(names))
        except OSError as error:
            # A kernel before 5.6; or a sandbox that does not know the call and forbids it.
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
    return _step_by_step(folder, names)


def _by_kernel(folder: int, below: str) -> int:
    """Follows links that stay beneath `folder`. Raises OSError; its errno is EXDEV for a link that
    leads out.
    """
    how = _OpenHow(FILE, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    name = ctypes.c_char_p(os.fsencode(below))
    number = errno.EAGAIN
    for _ in range(RACES):
        found = call(
            ctypes.c_long(OPENAT2),
            ctypes.c_long(folder),
            name,
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return int(found)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number))


def _step_by_step(folder: int, names: list[str]) -> int:
    """Follows no links. Raises OSError; its errno is ELOOP for a link."""
    at = os.dup(folder)
    try:
        for name in names[:-1]:
            try:
                below = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=at)
            except NotADirectoryError:
                if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                raise
            os.close(at)
            at = below
        return os.open(names[-1], FILE | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)


def _explained(
    error: OSError, shown: Path
) -> OutsideRoots | SourceNotFound | NotAFile | SourceUnreadable:
    if error.errno in (errno.EXDEV, errno.ELOOP):
        return OutsideRoots()
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return SourceNotFound("there is no such file beneath the import roots")
    if error.errno == errno.ENAMETOOLONG:
        return SourceNotFound("there is no such file: the name is too long")
    if error.errno in (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP):
        # A socket, or a device without a driver.
        return NotAFile(f"{shown} is not a regular file")
    return SourceUnreadable(f"{shown} cannot be opened: {error.strerror}")


def _name_of(descriptor: int) -> str | None:
    with contextlib.suppress(OSError):
        return os.fspath(Path(f"/proc/self/fd/{descriptor}").readlink())
    return None

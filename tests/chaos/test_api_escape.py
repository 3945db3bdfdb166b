"""No request opens a file outside the import roots: seen by the kernel and by an audit hook.

The status of an answer proves nothing here. The server reports every `open` of its interpreter to a
file, and the kernel tells which files of the forbidden folders anybody opened.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.api import Api, serving
from support.customers import csv
from support.databases import environment

# Written into a `sitecustomize` that the server's interpreter imports before anything else.
HOOK = """
import os, sys
told = os.open(os.environ["OPENS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def seen(event, args):
    if event in ("open", "os.listdir", "os.scandir"):
        os.write(told, (repr(args[0]) + "\\n").encode("utf-8", "replace"))
sys.addaudithook(seen)
"""
IN_OPEN, IN_ACCESS, IN_NONBLOCK = 0x20, 0x01, os.O_NONBLOCK


class Watch:
    """What anybody opens in some folders, as the kernel sees it; not what is only named."""

    def __init__(self, *folders: Path) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init1(IN_NONBLOCK)
        for folder in folders:
            assert self.libc.inotify_add_watch(self.handle, os.fsencode(folder), IN_OPEN) >= 0

    def opened(self) -> list[str]:
        """Names of the files that were opened since the last call."""
        found = []
        while True:
            try:
                events = os.read(self.handle, 1 << 16)
            except BlockingIOError:
                return found
            at = 0
            while at < len(events):
                _, mask, _, size = struct.unpack_from("iIII", events, at)
                name = events[at + 16 : at + 16 + size].rstrip(b"\0").decode(errors="replace")
                at += 16 + size
                # A folder that is walked through is not a file that is read.
                if not mask & 0x40000000:
                    found.append(name)

    def close(self) -> None:
        os.close(self.handle)


class Ground:
    """A root with ways out of it, and what must not be opened."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.outside = base / "outside"
        self.beside = base / "root-too"  # its name begins with the root's
        for folder in (self.root, self.outside, self.beside, self.root / "folder"):
            folder.mkdir()
        self.inside = csv(self.root / "inside.csv", 20)
        self.secret = csv(self.outside / "secret.csv", 20, seed=2)
        csv(self.beside / "secret.csv", 20, seed=2)
        links = {
            "link.csv": self.secret,
            "relative.csv": Path("../outside/secret.csv"),
            "twice.csv": self.root / "link.csv",
            "out": self.outside,
            "up": Path(".."),
            "proc": Path("/proc/self"),
            "environ.csv": Path("/proc/self/environ"),
            "fd.csv": Path("/proc/self/fd/0"),
            "zero.csv": Path("/dev/zero"),
            "round.csv": self.root / "round.csv",
        }
        for name, target in links.items():
            (self.root / name).symlink_to(target)
        os.mkfifo(self.root / "fifo.csv")
        os.mkfifo(self.outside / "fifo.csv")
        self.listener = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(self.root)  # the name of a socket must be short
        self.listener.bind("socket.csv")
        os.chdir(here)

    def ways_out(self) -> list[str]:
        root, name = str(self.root), "outside/secret.csv"
        return [
            *(f"{root}/../{name}", f"../{name}", f"{root}/folder/../../{name}", str(self.secret)),
            *(f"{root}/./.././{name}", f"{root}//..//{name}", f"{root}/nothing/../../{name}"),
            *(f"{root}/inside.csv/../../{name}", f"{root}/fifo.csv/../../{name}"),
            *(f"/{self.secret}", f"//{self.secret}", f"/proc/self/root{self.secret}"),
            *(
                f"/proc/self/cwd/../{name}",
                "/proc/self/environ",
                "/proc/self/mem",
                "/proc/1/environ",
            ),
            *(f"{root}/{link}" for link in ("link.csv", "relative.csv", "twice.csv", "round.csv")),
            *(f"{root}/out/secret.csv", f"{root}/up/{name}", f"{root}/up/root/up/{name}"),
            *(f"{root}/proc/environ", f"{root}/environ.csv", f"{root}/fd.csv", f"{root}/zero.csv"),
            *(f"{root}/proc/root{self.secret}", f"{root}/proc/cwd/../{name}"),
            *(f"{self.beside}/secret.csv", f"{root}-too/secret.csv", "/etc/passwd", "/etc/shadow"),
            *("/dev/zero", "/dev/random", "/dev/stdin", "/dev/fd/0", "/dev/tty", "/dev/mem"),
            *(f"{root}/fifo.csv", f"{root}/socket.csv", f"{self.outside}/fifo.csv", root, "/"),
            *(f"{self.secret}\0.csv", f"{root}/inside.csv\0/../../{name}", f"..%2f{name}"),
            *(f"..%252f{name}", f"..\\{name}", f"file://{self.secret}", f"{root}/‥/{name}"),
            *(f"{root}/．．/{name}", f"{root}/\u202e../{name}", f"{root}/..\u0301/{name}"),
            *(f"{root}/.\u200b./{name}", f"{root}/..\xad/{name}", "\u2025/outside/secret.csv"),
            *(f"{root}/{'x' * 255}", f"{root}/{'x' * 256}", f"{root}/{'a/' * 900}x", "/" * 2048),
            *(f"{root}/{'../' * 600}{name}"[:2048], f"{'../' * 300}{str(self.secret)[1:]}"),
            *("~/secret.csv", "$HOME/secret.csv", "`id`", "secret.csv;id", "|id", "-", "--help"),
        ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("ground"))
    yield ground
    ground.listener.close()


@pytest.fixture(scope="module")
def watched(ground, shared_dsn, tmp_path_factory) -> Iterator[tuple[Api, Path, Watch]]:
    """A server that reports what it opens, and the kernel's own report."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "sitecustomize.py").write_text(HOOK)
    opens = folder / "opens"
    paths = os.pathsep.join([str(folder), *environment().get("PYTHONPATH", "").split(os.pathsep)])
    watch = Watch(ground.outside, ground.beside)
    with serving(
        ground.root.parent,
        DATABASE_URL=shared_dsn,
        IMPORT_ROOTS=ground.root,
        PYTHONPATH=paths,
        OPENS=opens,
    ) as api:
        yield api, opens, watch
    watch.close()


def asked(api: Api, path: str) -> int:
    return api.post("/customers/sync", {"filePath": path}).status_code


def names(opens: Path, since: int = 0) -> list[str]:
    return opens.read_bytes()[since:].decode(errors="replace").splitlines()


def test_the_watchers_see_what_is_opened(watched, ground):
    """Else all the tests below would prove nothing."""
    api, opens, watch = watched
    before = opens.stat().st_size
    assert asked(api, str(ground.inside)) == 200
    api.until("COMPLETED")
    assert repr(str(ground.inside)) in names(opens, before)
    watch.opened()
    ground.secret.read_bytes()
    assert watch.opened() == ["secret.csv"]


def test_every_way_out_is_refused_and_opens_nothing(watched, ground):
    api, opens, watch = watched
    watch.opened()
    before = opens.stat().st_size
    for way in ground.ways_out():
        assert asked(api, way) == 400, way
        assert watch.opened() == [], way
    opened = names(opens, before)
    inside = {repr(str(ground.inside))}
    # What the interpreter itself opens on the way (modules, time zones) is not a way out.
    strange = [
        name
        for name in opened
        if name not in inside
        and any(
            word in name for word in ("secret", "outside", "passwd", "shadow", "environ", "/dev/")
        )
    ]
    assert strange == []
    # A FIFO and a socket are looked at without waiting for anybody, and nothing was started.
    assert api.progress()["status"] in ("idle", "COMPLETED")


def test_resume_looks_again(watched, ground, shared_dsn):
    """Between pause and resume the file was replaced by a link that leads out."""
    api, _, watch = watched
    path = csv(ground.root / "later.csv", 200, seed=7)
    with psycopg.connect(shared_dsn, autocommit=True) as conn:
        assert asked(api, str(path)) == 200
        job = api.until("COMPLETED")["jobId"]
        conn.execute(
            "UPDATE imports SET status = 'PAUSED', completed_at = NULL WHERE id = %s", [int(job)]
        )
        path.unlink()
        path.symlink_to(ground.secret)
        watch.opened()
        assert api.post(f"/imports/{job}/resume").status_code == 400
        assert watch.opened() == []
        # Nor does the server by itself, when it takes up what was interrupted.
        conn.execute("UPDATE imports SET status = 'INTERRUPTED' WHERE id = %s", [int(job)])
        conn.execute("NOTIFY customer_panel_requests")
        threading.Event().wait(2.5)
        assert watch.opened() == []
        conn.execute(
            "UPDATE imports SET status = 'COMPLETED', completed_at = now() WHERE id = %s",
            [int(job)],
        )


@pytest.mark.parametrize("what", ["file", "folder"])
def test_swapped_while_opening(watched, ground, what):
    """One moment a file inside, the next a link to outside; as fast as the kernel can."""
    api, _, watch = watched
    place = ground.root / f"swap-{what}"
    good, bad = ground.root / f"good-{what}", ground.root / f"bad-{what}"
    if what == "file":
        csv(good, 5)
        bad.symlink_to(ground.secret)
        path = place
    else:
        good.mkdir()
        csv(good / "secret.csv", 5)
        bad.symlink_to(ground.outside)
        path = place / "secret.csv"
    good.rename(place)
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()

    def swap() -> None:
        """Exchanges the two names, so that there is always one."""
        while not stop.is_set():
            libc.renameat2(-100, os.fsencode(place), -100, os.fsencode(bad), 2)

    watch.opened()
    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = {200: 0, 400: 0, 409: 0}
    try:
        for _ in range(300):
            seen[asked(api, str(path))] += 1
    finally:
        stop.set()
        swapper.join()
    print(json.dumps(seen))
    api.until("COMPLETED", "idle")
    assert watch.opened() == []
    assert seen[400], "the link was met"
    assert seen[200] + seen[409] > 0, "the file was met"

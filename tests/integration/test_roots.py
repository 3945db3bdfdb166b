"""Only regular files beneath the roots are opened, whatever a path spells and others do meanwhile."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from customer_panel.errors import (
    NotAFile,
    OutsideRoots,
    SourceError,
    SourceNotFound,
    SourceUnreadable,
)
from customer_panel.imports import roots
from customer_panel.imports.roots import open_beneath
from support.databases import environment

INSIDE, OUTSIDE = b"inside\n", b"outside\n"


@pytest.fixture(params=["kernel", "steps"])
def way(request, monkeypatch):
    """Both ways to open: with openat2, and on a kernel that lacks it."""
    if request.param == "steps":

        def lacking(folder, below):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(roots, "_by_kernel", lacking)
    elif sys.platform != "linux":
        pytest.skip("openat2 is Linux's")
    return request.param


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / "a.csv").write_bytes(INSIDE)
    (root / "below" / "b.csv").write_bytes(INSIDE)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.csv").write_bytes(OUTSIDE)
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "secret.csv").write_bytes(OUTSIDE)
    monkeypatch.chdir(tmp_path)
    return root


def head(root: Path, path: str | Path) -> bytes:
    source = open_beneath([root], path)
    try:
        return source.head
    finally:
        source.close()


@pytest.mark.parametrize(
    "path",
    [
        "{root}/a.csv",
        "{root}/below/b.csv",
        "{root}/below/../a.csv",
        "{root}//./a.csv",
        "{root}/gone/../a.csv",
        "{root}/../root/a.csv",
        "root/a.csv",
        "./root/below/b.csv",
        "outside/../root/a.csv",
        "a.csv",
        "below/b.csv",
    ],
)
def test_a_file_beneath_a_root_is_opened_however_it_is_spelled(way, root, path):
    assert head(root, path.format(root=root)) == INSIDE


def test_the_name_that_is_kept_with_the_job_opens_it_again(way, root, monkeypatch):
    source = open_beneath([root], "below/b.csv")
    source.close()
    assert source.path == root / "below/b.csv"
    monkeypatch.chdir("/")
    assert head(root, source.path) == INSIDE


def test_a_relative_path_is_looked_for_in_the_working_folder_then_in_each_root(way, root):
    (root / "root").mkdir()
    (root / "root" / "a.csv").write_bytes(b"deeper\n")
    assert head(root, "root/a.csv") == INSIDE
    (root / "a.csv").unlink()
    assert head(root, "root/a.csv") == b"deeper\n"


OUT = [
    "{top}/outside/secret.csv",
    "{top}/outside/gone.csv",
    "{top}/outside",
    "{top}/gone/gone.csv",
    "{top}/root2/secret.csv",
    "{top}/root2/gone.csv",
    "{root}/../outside/secret.csv",
    "{root}/below/../../outside/secret.csv",
    "{root}/below/../../outside/gone.csv",
    "{root}/..",
    "../../../../../../../../etc/passwd",
    "../../../../../../../../etc/gone",
    "//etc/passwd",
    "/etc/passwd",
    "/etc/gone",
    "/etc/shadow/x",
    "/",
    "/dev/zero",
    "/dev/gone",
    "/proc/self/environ",
    "/proc/self/root{root}/a.csv",
    "/proc/self/cwd/root/a.csv",
    "/proc/self/fd/0",
]


@pytest.mark.parametrize("path", OUT)
def test_outside_is_one_message_whether_it_exists_or_not(way, root, path):
    with pytest.raises(OutsideRoots) as refused:
        open_beneath([root], path.format(root=root, top=root.parent))
    assert refused.value.message == OutsideRoots().message


@pytest.mark.parametrize("name", ["secret.csv", "gone.csv"])
def test_a_relative_path_to_outside_is_not_there_whether_it_exists_or_not(way, root, name):
    for path in (f"outside/{name}", f"./outside/{name}", f"root/../outside/{name}"):
        with pytest.raises(SourceNotFound) as refused:
            open_beneath([root], path)
        assert refused.value.message == "there is no such file beneath the import roots"


@pytest.mark.parametrize("target", ["{top}/outside", "../outside", "below/../../outside", "/"])
@pytest.mark.parametrize("name", ["secret.csv", "gone.csv"])
def test_a_link_that_leads_out_is_not_followed(way, root, target, name):
    (root / "link").symlink_to(target.format(top=root.parent))
    (root / "file.csv").symlink_to(f"{target.format(top=root.parent)}/{name}")
    for path in (f"{root}/link/{name}", f"{root}/file.csv", "file.csv"):
        with pytest.raises(OutsideRoots) as refused:
            open_beneath([root], path)
        assert refused.value.message == OutsideRoots().message


@pytest.mark.parametrize(
    "path", ["/proc/self/environ", "/proc/self/fd/0", "/proc/self/root/etc/passwd"]
)
def test_magic_links_are_not_followed(way, root, path):
    (root / "link").symlink_to(path)
    with pytest.raises(OutsideRoots):
        open_beneath([root], root / "link")
    # Not even where somebody made them a root.
    with pytest.raises(SourceError):
        open_beneath([Path("/proc/self")], "/proc/self/cwd/root/a.csv")
    with pytest.raises(SourceError):
        open_beneath([Path("/proc/self/fd")], "/proc/self/fd/0")


def test_a_relative_link_within_the_root_is_followed_where_the_kernel_guards_it(way, root):
    (root / "link.csv").symlink_to("below/b.csv")
    (root / "folder").symlink_to("below")
    (root / "below" / "up").symlink_to("..")
    for path in ("link.csv", "folder/b.csv", "below/up/a.csv"):
        if way == "kernel":
            assert head(root, root / path) == INSIDE
        else:
            with pytest.raises(OutsideRoots):
                open_beneath([root], root / path)


def test_links_in_a_circle_are_refused(way, root):
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    with pytest.raises(OutsideRoots):
        open_beneath([root], root / "one")


def test_a_root_may_be_a_link_itself_and_has_both_names(way, root, tmp_path):
    (tmp_path / "named").symlink_to(root)
    assert head(tmp_path / "named", tmp_path / "named" / "a.csv") == INSIDE
    assert head(tmp_path / "named", root / "a.csv") == INSIDE


def test_without_roots_or_with_a_root_that_is_gone_everything_is_outside(way, root, tmp_path):
    for allowed in ([], [tmp_path / "gone"], [root / "a.csv"]):
        for path in (root / "a.csv", tmp_path / "gone" / "a.csv", "a.csv", "gone.csv"):
            with pytest.raises(OutsideRoots):
                open_beneath(allowed, path)
    # The others are still good.
    open_beneath([tmp_path / "gone", root], "a.csv").close()


def test_what_is_not_there_beneath_a_root_may_be_said(way, root):
    for path in ("gone.csv", f"{root}/gone.csv", f"{root}/gone/gone.csv", f"{root}/a.csv/x"):
        with pytest.raises(SourceNotFound, match="no such file beneath"):
            open_beneath([root], path)
    for path in (root, f"{root}/below", f"{root}/below/..", "."):
        with pytest.raises(NotAFile, match="is a folder"):
            open_beneath([root.parent] if path == "." else [root], path)


def test_only_regular_files(way, root):
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("root/socket")
        for name in ("fifo", "socket"):
            with pytest.raises(NotAFile, match="not a regular file"):
                open_beneath([root], root / name)
    for device in ("zero", "null", "random", "tty"):
        with pytest.raises((NotAFile, OutsideRoots)):
            open_beneath([Path("/dev")], f"/dev/{device}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_is_unreadable(way, root):
    (root / "a.csv").chmod(0)
    with pytest.raises(SourceUnreadable):
        open_beneath([root], root / "a.csv")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "\0",
        "a.csv\0",
        "{root}/a.csv\0.txt",
        "\ud800",
        "{root}/\udfff\ud800.csv",
        "x" * 256,
        "x" * 2048,
        "x/" * 1024,
        "{root}/" + "y" * 5000,
        "{root}/" + "below/../" * 1000 + "gone.csv",
        "\u202egnp.csv",
        "{root}/a\u0301\u200b\ufeff.csv",
        "{root}/\U0001f4a9\n\r\t\x1b[2J",
        "..\\..\\etc\\passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "file:///etc/passwd",
        "~root/.profile",
        " ",
        "{root}/a.csv ",
        "-",
        "~",
        "$HOME",
    ],
    ids=range(23),
)
def test_odd_names_are_a_clean_error(way, root, path):
    with pytest.raises(SourceNotFound) as refused:
        open_beneath([root], path.format(root=root))
    assert len(refused.value.message) < 100


def test_odd_names_of_files_that_exist_are_opened(way, root):
    for name in ("\u202egnp.csv", "a\u0301.csv", "\U0001f4a9\n.csv", "..a.csv", "a..csv", " "):
        (root / name).write_bytes(INSIDE)
        assert head(root, root / name) == INSIDE
    raw = os.fsencode(root) + b"/\xff\xfe.csv"
    Path(os.fsdecode(raw)).write_bytes(INSIDE)
    assert head(root, os.fsdecode(raw)) == INSIDE


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


def test_a_refused_file_leaves_no_descriptor_open(way, root):
    os.mkfifo(root / "fifo")
    before = descriptors()
    for path in ("fifo", "below", "gone", "../outside/secret.csv", "a.csv/x"):
        with pytest.raises(SourceError):
            open_beneath([root], root / path)
    open_beneath([root], "a.csv").close()
    assert descriptors() == before


SWAPPED = """
import contextlib, json, os, sys, threading
from pathlib import Path
from customer_panel.errors import CustomerPanelError
from customer_panel.imports import roots

top = Path(sys.argv[1])
root, outside = top / "root", top / "outside"
opened = []

def hook(event, arguments):
    if event == "open":
        opened.append(arguments[0])

if sys.argv[2] == "steps":
    def lacking(folder, below):
        raise OSError(38, "")
    roots._by_kernel = lacking

swaps, is_over = 0, threading.Event()

def swap():
    # "below" is in turn the folder with our file and a link to the folder outside with a file of
    # the same name; so is "file.csv".
    global swaps
    os.symlink("../outside", root / "link")
    os.symlink("../outside/b.csv", root / "filelink")
    while not is_over.is_set():
        for one, other in (("below", "link"), ("file.csv", "filelink")):
            os.rename(root / one, root / "aside")
            os.rename(root / other, root / one)
            os.rename(root / one, root / other)
            os.rename(root / "aside", root / one)
            swaps += 1

seen = {"inside": 0, "OutsideRoots": 0, "SourceNotFound": 0}
thread = threading.Thread(target=swap)
sys.addaudithook(hook)
thread.start()
while swaps < 5000 or not all(seen.values()):
    for name in ("below/b.csv", "file.csv"):
        try:
            source = roots.open_beneath([root], root / name)
        except CustomerPanelError as error:
            seen[type(error).__name__] = seen.get(type(error).__name__, 0) + 1
        else:
            assert source.head == b"inside\\n", source.head
            source.close()
            seen["inside"] += 1
is_over.set()
thread.join()
print(json.dumps({"seen": seen, "swaps": swaps, "opened": sorted(set(map(str, opened)))}))
"""


@pytest.mark.parametrize("steps", ["kernel", "steps"])
def test_a_folder_swapped_for_a_link_while_it_is_opened_never_leads_out(root, steps):
    """Thousands of times, with an audit hook that sees what is really opened."""
    (root.parent / "outside" / "b.csv").write_bytes(OUTSIDE)
    (root / "file.csv").write_bytes(INSIDE)
    done = subprocess.run(
        [sys.executable, "-c", SWAPPED, str(root.parent), steps],
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["swaps"] >= 5000
    assert set(report["seen"]) == {"inside", "OutsideRoots", "SourceNotFound"}
    assert any(name.endswith("/b.csv") for name in report["opened"])
    outside = [name for name in report["opened"] if "outside" in name]
    assert not outside
    beneath = [name for name in report["opened"] if name.startswith("/")]
    assert all(Path(name).is_relative_to(root) for name in beneath), beneath


AUDITED = """
import json, sys
from pathlib import Path
from customer_panel.errors import CustomerPanelError
from customer_panel.imports.roots import open_beneath

root, opened, answers = Path(sys.argv[1]), [], {}

def hook(event, arguments):
    if event.startswith(("open", "os.listdir", "os.scandir", "subprocess", "socket")):
        opened.append(str(arguments[0]))

sys.addaudithook(hook)
for path in json.loads(sys.argv[2]):
    try:
        open_beneath([root], path).close()
    except CustomerPanelError as error:
        answers[path] = error.code
    else:
        answers[path] = "opened"
print(json.dumps({"opened": opened, "answers": answers}))
"""


def test_nothing_outside_the_roots_is_opened(root):
    """Seen by an audit hook of another process, not by the answers alone."""
    (root / "link").symlink_to(root.parent / "outside")
    (root / "file.csv").symlink_to(root.parent / "outside" / "secret.csv")
    (root / "environ").symlink_to("/proc/self/environ")
    os.mkfifo(root / "fifo")
    paths = [path.format(root=root, top=root.parent) for path in OUT]
    paths += [f"{root}/{name}" for name in ("link/secret.csv", "file.csv", "environ", "fifo")]
    paths += [f"{root}/a.csv"]
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, str(root), json.dumps(paths)],
        env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["answers"].pop(f"{root}/a.csv") == "opened"
    assert report["answers"].pop(f"{root}/fifo") == "not_a_file"
    assert set(report["answers"].values()) == {"outside_roots"}
    assert set(report["opened"]) == {str(root), f"{root}/fifo", f"{root}/a.csv"}


def test_the_descriptor_that_was_judged_is_the_one_that_is_read(way, root):
    source = open_beneath([root], "a.csv")
    (root / "a.csv").rename(root / "old.csv")
    (root / "a.csv").symlink_to("../outside/secret.csv")
    assert os.pread(source.descriptor, 100, 0) == INSIDE
    source.close()


def test_two_threads_open_at_once(way, root):
    failures = []

    def work():
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                source = open_beneath([root], "below/b.csv")
                stack.callback(source.close)
                if source.head != INSIDE:
                    failures.append(source.head)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

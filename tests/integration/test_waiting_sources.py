"""A source that gives nothing: a stop ends whatever waits for it, and no thread of ours stays."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from customer_panel import errors, import_customers, iter_batches
from customer_panel._native import Feed, Source
from customer_panel.imports import Stop
from support.databases import environment
from support.waiting import wait_until

ENDS_S = 30.0  # much longer than it takes; a hang has no end
HEADER = b"id,city\n"
SENT = {
    "nothing": b"",
    "half a header": b"id,ci",
    "a row": HEADER + b"1,Rome\n",
    "some chunks": HEADER + b"".join(b"%d,Rome\n" % number for number in range(200_000)),
}


class Silent:
    """Gives some bytes, and then waits until it is let go."""

    def __init__(self, sent: bytes) -> None:
        self.sent = sent
        self.is_waiting = threading.Event()
        self.is_let_go = threading.Event()

    def generator(self) -> Iterator[bytes]:
        if self.sent:
            yield self.sent
        self.is_waiting.set()
        self.is_let_go.wait()

    def pipe(self) -> Any:
        receiver, sender = os.pipe()
        return self._file(os.fdopen(receiver, "rb", 0), os.fdopen(sender, "wb", 0))

    def socket(self) -> Any:
        receiver, sender = socket.socketpair()
        return self._file(receiver.makefile("rb", 0), sender.makefile("wb", 0))

    def _file(self, receiver: Any, sender: Any) -> Any:
        def write() -> None:
            rest = self.sent
            while rest:
                rest = rest[sender.write(rest) :]
            self.is_waiting.set()
            self.is_let_go.wait()
            sender.close()

        threading.Thread(target=write, daemon=True).start()
        return receiver


def native_threads() -> list[str]:
    """The names of the engine's threads in this process."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            continue  # it has ended meanwhile
    return [name for name in names if name.startswith(("cp-read", "cp-parse", "cp-seq"))]


def ours() -> list[str]:
    """The names of all threads of an import, native ones and those of Python."""
    python = [thread.name for thread in threading.enumerate() if thread.name.startswith("cp-")]
    return sorted(python + native_threads())


def outcome(work: Any) -> tuple[threading.Thread, list[Any]]:
    """Runs `work` in a thread; the thread, and what it returned or raised."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("kind", ["generator", "pipe", "socket"])
@pytest.mark.parametrize("sent", SENT)
def test_a_stop_ends_an_import_whose_source_waits(dsn, sent, kind, dry_run):
    silent, stop = Silent(SENT[sent]), Stop()
    before = ours()
    source = getattr(silent, kind)()
    thread, found = outcome(lambda: import_customers(source, dsn, stop=stop, dry_run=dry_run))
    assert silent.is_waiting.wait(ENDS_S)
    stop.ask("PAUSED")
    thread.join(ENDS_S)
    assert not thread.is_alive()
    assert isinstance(found[0], errors.Stopped)
    # The one that is left sits in the caller's code, and is a daemon.
    wait_until("the engine's threads end", lambda: not native_threads(), ENDS_S, ours)
    left = [thread for thread in threading.enumerate() if thread.name.startswith("cp-")]
    assert [thread.name for thread in left if not thread.daemon] == []
    wait_until("only the feed is left", lambda: len(ours()) <= len(before) + 1, ENDS_S, ours)
    silent.is_let_go.set()
    wait_until("the feed ends with its iterator", lambda: ours() == before, ENDS_S, ours)
    with psycopg.connect(dsn) as conn:
        open_jobs = "SELECT count(*) FROM imports WHERE status IN ('RUNNING', 'PAUSED')"
        assert conn.execute(open_jobs).fetchone() == (0,)


def test_a_stop_before_the_start_is_obeyed(dsn):
    silent, stop = Silent(b""), Stop()
    stop.ask()
    with pytest.raises(errors.Stopped):
        import_customers(silent.generator(), dsn, stop=stop)
    silent.is_let_go.set()


def test_closed_batches_leave_no_thread_in_the_engine():
    silent = Silent(SENT["some chunks"])
    batches = iter_batches(silent.generator(), batch_rows=1000)
    assert next(batches).rows
    assert silent.is_waiting.wait(ENDS_S)
    batches.close()
    wait_until("the engine's threads end", lambda: not native_threads(), ENDS_S, ours)
    silent.is_let_go.set()


def test_a_feed_is_closed_though_it_waits_for_room():
    feed = Feed()
    source = Source.from_feed(feed)
    thread, found = outcome(lambda: feed.push(bytes(8 << 20)))
    assert source.head(1 << 20) == bytes(1 << 20)
    feed.close()
    thread.join(ENDS_S)
    assert found == [False]


SCRIPTS = {
    "iter_batches": "list(iter_batches(Told()))",
    "import": "import_customers(Told())",
    "dry run": "import_customers(Told(), dry_run=True)",
}


@pytest.mark.parametrize("sent", ["nothing", "a row"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_ctrl_c_ends_a_script_whose_source_waits(dsn, name, sent):
    script = f"""
import os
from customer_panel import import_customers, iter_batches

class Told:
    def read(self, count):
        print("reads", flush=True)
        return os.read(0, count)

try:
    {SCRIPTS[name]}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment(DATABASE_URL=dsn),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"reads\n"
        if SENT[sent]:
            process.stdin.write(SENT[sent])
            process.stdin.flush()
            assert process.stdout.readline() == b"reads\n"
        # The main thread waits for a read that never returns, or is on its way there.
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"interrupted\n"
        assert process.wait(ENDS_S) == 0


def test_a_stream_without_a_stop_is_read_to_its_end(dsn):
    assert import_customers(io.BytesIO(SENT["a row"]), dsn).rows_inserted == 1

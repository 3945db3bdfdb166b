"""The calls of the driver in this process: each has a name, and one of them can be disturbed.

A call is one exchange with the server: a statement, BEGIN or COMMIT, the start of a COPY, its rows or
its end, a wait for notifications, a new connection. Its name is the thread, what is called, and the
how manieth of these it is: `cp-lane-0 advance_lane 3`. So a name means the same call in each run,
whatever the other threads do meanwhile.

`Calls.watch` wraps generators of psycopg, so a call is disturbed from within: an error goes the way
through the driver that a real one goes.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import _copy, connection, errors, generators
from psycopg._preparing import Prepare
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready, Wait

from customer_panel.imports.job.sessions import Sessions
from customer_panel.sql import statements

ANSWER_MS = 20_000  # of a statement of a small import
CONNECT, LISTEN = "connect", "notifies"
SAID = "as the test asks"

Steps = Generator[Any, Any, Any]


class Unexpected(Exception):
    """An error that nothing in the product knows."""


@dataclass
class Call:
    """A call that is to be disturbed."""

    what: str
    steps: Steps  # of the driver, not begun yet
    pgconn: Any = None
    exchanges: int = 1  # two for a statement that is prepared, then executed


# -- one of them is disturbed -----------------------------------------------------------------------


class Calls:
    """Names the calls, and disturbs the one that is named `at`, if it comes.

    `on_hang` is called when a call hangs.
    """

    def __init__(
        self,
        dsn: str,
        at: str | None = None,
        kind: str = "kill-before",
        on_hang: Callable[[], None] = lambda: None,
    ) -> None:
        self.dsn, self.at, self.on_hang = dsn, at, on_hang
        self.names: list[str] = []
        self.is_disturbed = False
        self._disturb = KINDS[kind]
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._local = threading.local()
        self.is_cancelling = False  # the engine cancels what takes long
        self._texts = {text: name for name, text in statements().items()}

    def _passed(self, call: Call) -> Steps:
        thread = threading.current_thread().name
        # The name of a thread that was given none ends with its function.
        function = re.search(r"\((.*)\)", thread)
        name = f"{function[1] if function else thread} {call.what}"
        with self._lock:
            self._counts[name] += 1
            name = f"{name} {self._counts[name]}"
            self.names.append(name)
        if name != self.at:
            return call.steps
        self.is_disturbed = True
        return self._disturb(self, call)

    def _named(self, query: Any) -> str:
        text = query.decode() if isinstance(query, bytes) else str(query)
        return self._texts.get(text) or " ".join(re.sub(r'_pg3_|["()\']', "", text).split()[:3])

    def watch(self) -> None:
        """Names every call from now on."""

        def wrapped(owner: Any, method: str, call: Callable[..., Call]) -> None:
            original = getattr(owner, method)

            def steps(*args: Any, **kwargs: Any) -> Steps:
                return (yield from self._passed(call(original(*args, **kwargs), *args)))

            setattr(owner, method, steps)

        def executed(steps: Steps, cursor: Any, query: Any, *_: Any) -> Call:
            # It has got its real parameters by now; its name is that of the text before.
            is_prepared = cursor._conn._prepared.get(query)[0] is Prepare.SHOULD
            return Call(self._local.what, steps, cursor._pgconn, 1 + is_prepared)

        def noted(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Steps:
            self._local.what = self._named(query)
            return (yield from execute(cursor, query, *args, **kwargs))

        def cancelling(sessions: Sessions) -> None:
            self.is_cancelling = True
            cancel(sessions)

        cursor, conn = psycopg.Cursor, psycopg.Connection
        execute, cancel = cursor._execute_gen, Sessions.cancel
        cursor._execute_gen, Sessions.cancel = noted, cancelling  # type: ignore[method-assign]
        wrapped(cursor, "_maybe_prepare_gen", executed)
        wrapped(
            cursor,
            "_start_copy_gen",
            lambda steps, cursor, text, *_: Call(self._named(text), steps, cursor._pgconn),
        )
        wrapped(
            conn,
            "_exec_command",
            lambda steps, conn, text, *_: Call(self._named(text), steps, conn.pgconn),
        )
        for owner, method, what in (
            (_copy, "copy_to", "rows of COPY"),
            (_copy, "copy_end", "end of COPY"),
            (connection, "notifies", LISTEN),
        ):
            wrapped(owner, method, lambda steps, pgconn, *_, what=what: Call(what, steps, pgconn))
        wrapped(generators, "connect", lambda steps, *_: Call(CONNECT, steps))


# -- how ------------------------------------------------------------------------------------------


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _sent(call: Call, *, is_answered: bool) -> Steps:
    """Sends the call, and waits for its answer, but does not read it."""
    if call.what == CONNECT:
        if not is_answered:
            next(call.steps)
            return
        call.pgconn = yield from call.steps
        call.steps = _is(call.pgconn)
        return
    begun = call.steps
    try:
        state = next(begun)
        for left in reversed(range(call.exchanges)):
            while state != Wait.R:
                state = begun.send((yield state))
            if left or is_answered:
                _wait_for_answer(call)
            if left:
                state = begun.send(Ready.R)
    except StopIteration as end:
        # Rows of a COPY have no answer.
        call.steps = _is(end.value)
    else:
        call.steps = _continued(begun, state)


def _is(value: Any) -> Steps:
    yield from ()
    return value


def _continued(begun: Steps, state: Any) -> Steps:
    try:
        while True:
            state = begun.send((yield state))
    except StopIteration as end:
        return end.value


def _wait_for_answer(call: Call) -> None:
    poll = select.poll()
    poll.register(call.pgconn.socket, select.POLLIN)
    assert poll.poll(ANSWER_MS), f"no answer to {call.what}"


def _cut(pgconn: Any) -> None:
    """Puts a socket that is closed at the other end in the place of the connection's."""
    ours, theirs = socket.socketpair()
    theirs.close()
    os.dup2(ours.fileno(), pgconn.socket)
    ours.close()


def _error_of_server(call: Call, state: str) -> Exception:
    """The server refuses the call: its transaction has failed, as by a real error."""
    if call.pgconn is None:
        return psycopg.OperationalError(f"connection failed: FATAL: {SAID}")
    if call.pgconn.transaction_status == TransactionStatus.ACTIVE:  # in a COPY
        call.pgconn.put_copy_end(SAID.encode())
        while call.pgconn.get_result():
            pass
        return errors.lookup(state)(SAID)
    raised = f"DO $$ BEGIN RAISE EXCEPTION '{SAID}' USING ERRCODE = '{state}'; END $$"
    return _ended(call, call.pgconn.exec_(raised.encode()))


def _ended(call: Call, result: Any) -> Exception:
    if call.what == "COMMIT":
        call.pgconn.exec_(b"ROLLBACK")
    return errors.error_from_result(result)


def kill_before(_: Calls, call: Call) -> Steps:
    kill_myself()
    return (yield from call.steps)


def kill_sent(_: Calls, call: Call) -> Steps:
    yield from _sent(call, is_answered=False)
    kill_myself()


def kill_answered(_: Calls, call: Call) -> Steps:
    yield from _sent(call, is_answered=True)
    kill_myself()


def cut_before(_: Calls, call: Call) -> Steps:
    if call.pgconn is None:
        raise psycopg.OperationalError("connection failed: refused")
    _cut(call.pgconn)
    return (yield from call.steps)


def cut_after(_: Calls, call: Call) -> Steps:
    yield from _sent(call, is_answered=True)
    _cut(call.pgconn)
    return (yield from call.steps)


def error_before(_: Calls, call: Call) -> Steps:
    yield from ()
    raise Unexpected(SAID)


def error_after(_: Calls, call: Call) -> Steps:
    yield from call.steps
    raise Unexpected(SAID)


def terminated(calls: Calls, call: Call) -> Steps:
    """The server ends the session, and says so in place of an answer."""
    if call.pgconn is None:
        raise psycopg.OperationalError("connection failed: FATAL: the database is starting up")
    with psycopg.connect(calls.dsn) as conn:
        conn.execute("SELECT pg_terminate_backend(%s, 20_000)", [call.pgconn.backend_pid])
    return (yield from call.steps)


def cancelled(_: Calls, call: Call) -> Steps:
    yield from ()
    raise _error_of_server(call, "57014")


def disk_full(_: Calls, call: Call) -> Steps:
    yield from ()
    raise _error_of_server(call, "53100")


def hang(calls: Calls, call: Call) -> Steps:
    """The server does not answer before it is cancelled."""
    if call.what in (CONNECT, LISTEN):
        return (yield from call.steps)
    calls.on_hang()
    if call.pgconn.transaction_status == TransactionStatus.ACTIVE:  # in a COPY
        # A server that waits for rows takes no cancel; one that is busy with them does.
        while not calls.is_cancelling:
            yield Wait.R
        raise _error_of_server(call, "57014")
    call.pgconn.send_query(b"SELECT pg_sleep(3600)")  # it is cancelled
    (result,) = yield from generators.execute(call.pgconn)
    raise _ended(call, result)


KINDS: dict[str, Callable[[Calls, Call], Steps]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        kill_before,
        kill_sent,
        kill_answered,
        cut_before,
        cut_after,
        error_before,
        error_after,
        terminated,
        cancelled,
        disk_full,
        hang,
    )
}

"""Look-ups by id, many at once: those of one turn of the event loop become one query.

One query at a time is in flight, on a connection of its own; what is asked meanwhile is the next
one. libpq is driven from the loop itself: a cursor and a task for each query would cost more than
the query (16 connections: 17,600 look-ups a second, 7,000 with them).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from customer_panel.db.connect import AsyncConnection
from customer_panel.db.pool import configure, options
from customer_panel.sql import statement

Row = tuple[Any, ...]
Waiting = dict[int, list[asyncio.Future[Row | None]]]

NAME = b"look_up_customers"
CONNECT_S = 3.0  # then the answer is that there is no database
ANSWER_S = 20.0  # past the server's own time limits: it is not there any more

GOING_DOWN = "57P"  # SQLSTATE class of a server that ends the session


class Lookup:
    """Customers by id. Belongs to the event loop that first asks it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: Waiting = {}
        self._asked: Waiting = {}
        self._is_again = False  # what is asked was asked before, of a connection that was lost
        self._is_scheduled = False
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def get(self, customer: int) -> Row | None:
        """The customer as it is shown, None if there is none.

        A connection that is lost is replaced, once. Raises psycopg.Error.
        """
        # Not asked for each time: it is a system call (8 % of an answer).
        loop = self._loop = self._loop or asyncio.get_running_loop()
        # A future for each, not for each id: one that is cancelled takes nobody with it.
        future: asyncio.Future[Row | None] = loop.create_future()
        self._waiting.setdefault(customer, []).append(future)
        if not self._is_scheduled and not self._asked and self._connecting is None:
            # Behind everything that is ready to run: whoever asks in this turn is in.
            self._is_scheduled = True
            loop.call_soon(self._ask)
        return await future

    async def close(self) -> None:
        """Whoever still waits is told that the connection is lost."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._link is not None:
            await self._link.close()
            self._link = None
        lost = psycopg.OperationalError("the server shuts down")
        _fail(self._asked, lost)
        _fail(self._waiting, lost)
        self._asked, self._waiting = {}, {}

    def _ask(self) -> None:
        """Sends what waits, if anything does."""
        self._is_scheduled = False
        if not self._asked:
            if not self._waiting:
                return
            self._asked, self._waiting = self._waiting, {}
            self._is_again = False
        if self._link is None or self._link.is_lost:
            assert self._loop is not None
            self._connecting = self._loop.create_task(self._connect())
            return
        ids = "{" + ",".join(map(str, self._asked)) + "}"
        self._link.ask(
            lambda pgconn: pgconn.send_query_prepared(
                NAME, [ids.encode()], param_formats=[0], result_format=1
            ),
            self._answered,
        )

    def _answered(self, answer: PGresult | psycopg.Error) -> None:
        link = self._link
        assert link is not None
        is_unheard = isinstance(answer, psycopg.Error) and link.is_lost
        if is_unheard and not self._is_again and not isinstance(answer, errors.ConnectionTimeout):
            self._is_again = True
        else:
            asked, self._asked = self._asked, {}
            try:
                rows = {row[0]: row for row in link.rows(answer)}
            except Exception as wrong:  # whatever it is: nobody waits for ever
                _fail(asked, wrong)
            else:
                _answer(asked, rows)
        self._ask()

    async def _connect(self) -> None:
        try:
            if self._link is not None:
                await self._link.close()
                self._link = None
            async with asyncio.timeout(CONNECT_S):
                self._link = await Link.open(self._dsn)
        except Exception as wrong:  # whatever it is: nobody waits for ever
            if isinstance(wrong, TimeoutError):
                wrong = errors.ConnectionTimeout("no answer")
            # Who came while this was tried has his answer too; the next one tries again.
            asked, self._asked = self._asked, {}
            waiting, self._waiting = self._waiting, {}
            _fail(asked, wrong)
            _fail(waiting, wrong)
        finally:
            self._connecting = None
        self._ask()


class Link:
    """A connection that is asked one thing at a time, without a task."""

    def __init__(self, conn: AsyncConnection) -> None:
        self._conn = conn
        self._pgconn = conn.pgconn
        self._socket = conn.pgconn.socket
        self._transformer = Transformer(conn)
        self._loop = asyncio.get_running_loop()
        self._told: Callable[[PGresult | psycopg.Error], None] | None = None
        self._result: PGresult | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_lost = False
        self._loop.add_reader(self._socket, self._readable)

    @classmethod
    async def open(cls, dsn: str) -> Link:
        """A connection with the look-up prepared. Raises psycopg.Error."""
        limits = options() | {"connect_timeout": int(CONNECT_S)}
        conn = await psycopg.AsyncConnection.connect(dsn, **limits)
        link = None
        try:
            await configure(conn)
            link = cls(conn)
            prepared: asyncio.Future[None] = link._loop.create_future()

            def told(answer: PGresult | psycopg.Error) -> None:
                if prepared.done():
                    return
                if isinstance(answer, psycopg.Error):
                    prepared.set_exception(answer)
                else:
                    prepared.set_result(None)

            query = statement("look_up_customers")
            link.ask(lambda pgconn: pgconn.send_prepare(NAME, query), told)
            await prepared
        except BaseException:
            await (conn if link is None else link).close()
            raise
        return link

    async def close(self) -> None:
        self._lose(None)
        await self._conn.close()

    def ask(
        self, send: Callable[[Any], None], told: Callable[[PGresult | psycopg.Error], None]
    ) -> None:
        """Sends a question. `told` is called with the result, or with what went wrong."""
        self._told = told
        self._timer = self._loop.call_later(
            ANSWER_S, self._lose, errors.ConnectionTimeout("no answer")
        )
        try:
            send(self._pgconn)
            self._flush()
        except psycopg.OperationalError as wrong:
            # Told in a turn of its own: nobody is called from within his own call.
            self._loop.call_soon(self._lose, wrong)

    def rows(self, answer: PGresult | psycopg.Error) -> list[Row]:
        """The rows of a result. Raises what went wrong instead."""
        if isinstance(answer, psycopg.Error):
            raise answer
        self._transformer.set_pgresult(answer)
        return self._transformer.load_rows(0, answer.ntuples, tuple)

    def _flush(self) -> None:
        if self._pgconn.flush():
            # The socket is full: what is left goes when it has room.
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._socket)
        try:
            self._flush()
        except psycopg.OperationalError as wrong:
            self._lose(wrong)

    def _readable(self) -> None:
        try:
            self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    break
                self._result = result
            else:
                return
        except psycopg.OperationalError as wrong:
            self._lose(wrong)
            return
        if self._told is None or self._result is None:
            # A notice, or a parameter that somebody changed: nobody asked.
            return
        told, self._told = self._told, None
        result, self._result = self._result, None
        self._stop_timer()
        if result.status == ExecStatus.FATAL_ERROR:
            failure = errors.error_from_result(result)
            if (failure.sqlstate or "").startswith(GOING_DOWN):
                self._lose(None)
            told(failure)
        else:
            told(result)

    def _lose(self, wrong: psycopg.Error | None) -> None:
        """The connection is of no use any more; who asked it is told."""
        if not self.is_lost:
            self.is_lost = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._stop_timer()
        told, self._told = self._told, None
        if told is not None and wrong is not None:
            told(wrong)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _answer(asked: Waiting, rows: dict[int, Row]) -> None:
    for customer, futures in asked.items():
        row = rows.get(customer)
        for future in futures:
            if not future.done():
                future.set_result(row)


def _fail(asked: Waiting, wrong: Exception) -> None:
    for futures in asked.values():
        for future in futures:
            if not future.done():
                future.set_exception(wrong)

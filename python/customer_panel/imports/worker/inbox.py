"""How a thread that waits for a session's notifications is woken by other threads too."""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


class Bell:
    """Rung from any thread, and from a signal handler; heard by one."""

    def __init__(self) -> None:
        self._ear, self._button = socket.socketpair()
        self._ear.setblocking(False)
        self._button.setblocking(False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._button.send(b"\0")

    def wait(self, seconds: float, conn: Connection | None) -> None:
        """Until the time is over, the bell rings or `conn` is notified.

        Raises psycopg.OperationalError when `conn` is lost.
        """
        # Not select: a server may have more than a thousand descriptors.
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            if conn is not None:
                selector.register(conn.fileno(), selectors.EVENT_READ)
            selector.select(seconds)
        with contextlib.suppress(BlockingIOError):
            while self._ear.recv(64):
                pass
        if conn is not None:
            for _ in conn.notifies(timeout=0):
                pass

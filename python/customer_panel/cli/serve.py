"""`customer-panel serve`: the HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import ipaddress
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import rich_click

from customer_panel.cli.shutdown import Shutdown
from customer_panel.errors import AddressInUse, AddressUnusable, NotInstalled, OpenToAll
from customer_panel.settings import Settings

if TYPE_CHECKING:
    from customer_panel.db.database import Database

# Modules of the extra `api` that the server needs.
NEEDED = ("litestar", "uvicorn", "httptools", "prometheus_client", "psycopg_pool")
BACKLOG = 2048  # connections that wait to be accepted, also while the server starts
GRACE_S = 2  # for answers in progress when the server is stopped
KEEP_ALIVE_S = 15  # until an idle connection is closed; a web page mostly calls again sooner
# A client that vanished without closing its connection is noticed: after 5 s of silence it is probed
# three times, 3 s apart.
KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 12_000}


@click.command(cls=rich_click.RichCommand)
@click.option("--host", metavar="ADDRESS", help="Listen here. Default: HOST, else 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: PORT, else 3000; 0: any.")
@click.option(
    "--root",
    "roots",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A folder that imports may read; repeatable. Default: IMPORT_ROOTS.",
)
def serve(host: str | None, port: int | None, roots: tuple[Path, ...]) -> None:
    """Serve the HTTP API until Ctrl-C or SIGTERM. One JSON line a request goes to stderr.

    A running import is interrupted at a batch border, and goes on at the next start.
    """
    _check_installed()
    settings = Settings.load()
    given = {
        "host": host,
        "port": port,
        "import_roots": tuple(root.absolute() for root in roots) or None,
    }
    settings = msgspec.structs.replace(
        settings, **{name: value for name, value in given.items() if value is not None}
    )
    _check_openness(settings)
    with _bound(settings.host, settings.port) as listeners:
        _run(settings, listeners)


def _check_installed() -> None:
    """Raises NotInstalled, before anything is started; looks, and imports nothing."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise NotInstalled(
                f'the HTTP API needs {name}, which is missing: pip install "customer-panel[api]"',
                hint="",  # one line says it
            )


def _check_openness(settings: Settings) -> None:
    """Raises OpenToAll for an address that other machines reach, unless there are keys, or
    CP_ALLOW_NO_AUTH says that none are wanted.
    """
    if is_loopback(settings.host) or settings.api_keys or settings.allow_no_auth:
        return
    raise OpenToAll(
        f"{settings.host} can be reached from other machines, and no key is set: everybody there"
        " could read and change all customers"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# -- the sockets ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets that listen already, one for each address of `host`: a client that connects while the
    server starts waits, and is answered.

    Raises AddressInUse or AddressUnusable.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise AddressUnusable(f"{host} is no address of this machine: {error.strerror}") from None
    with contextlib.ExitStack() as stack:
        listeners: list[socket.socket] = []
        for family, kind, protocol, _, address in found:
            if listeners:
                # With port 0 the first socket gets a free port; the others take the same one.
                address = (address[0], listeners[0].getsockname()[1], *address[2:])
            try:
                listener = stack.enter_context(socket.socket(family, kind, protocol))
                _prepare(listener)
                listener.bind(address)
                listener.listen(BACKLOG)
            except OSError as error:
                raise _explained(error, host, port) from None
            listeners.append(listener)
        yield listeners


def _prepare(listener: socket.socket) -> None:
    """Sets options, which the accepted connections inherit."""
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if listener.family == socket.AF_INET6:
        # So that `::` and `0.0.0.0` can be bound to one port, where a name stands for both.
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _explained(error: OSError, host: str, port: int) -> AddressInUse | AddressUnusable:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(f"another program listens on port {port} of {host}")
    if error.errno == errno.EACCES:
        return AddressUnusable(
            f"port {port} needs rights that you do not have", hint="Choose a port from 1024 on."
        )
    return AddressUnusable(f"cannot listen on port {port} of {host}: {error.strerror}")


# -- the process ----------------------------------------------------------------------------------


def _run(settings: Settings, listeners: list[socket.socket]) -> None:
    """Serves until a signal. The database starts while the heavy modules are imported."""
    from customer_panel.db.database import Database

    _allow_files()
    shutdown = Shutdown()
    database = Database(settings)
    with shutdown.by_signals():
        database.begin()
        try:
            server = _server(settings, database, shutdown, lambda: _announce(settings, listeners))
            database.wait()
            if not shutdown.is_requested:
                server.run(sockets=listeners)
        finally:
            database.release()
    shutdown.exit()


def _allow_files() -> None:
    """Raises the limit of open files as far as permitted: many shells set 1,024, which 500 streams
    and other clients come close to.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # If `most` is "unlimited", some platforms refuse to set it.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _server(
    settings: Settings, database: Database, shutdown: Shutdown, on_start: Callable[[], None]
) -> Any:
    import uvicorn

    from customer_panel.api.app import create_app
    from customer_panel.api.middleware import logs
    from customer_panel.api.middleware.protocol import Protocol
    from customer_panel.api.state import AppState

    class Server(uvicorn.Server):
        """With our signal handling: it ends the streams and the import too."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_start()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            loop = asyncio.get_running_loop()

            def stop() -> None:
                self.should_exit = True
                state.begin_shutdown()

            # Not in the signal handler itself: the code that it interrupted may hold a lock.
            shutdown.on_request(lambda: loop.call_soon_threadsafe(stop))
            try:
                yield
            finally:
                shutdown.on_request(lambda: None)

    logs.configure()
    state = AppState(settings)
    config = uvicorn.Config(
        create_app(state, database),
        http=Protocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    return Server(config)


def _announce(settings: Settings, listeners: Sequence[socket.socket]) -> None:
    host, port = settings.host, listeners[0].getsockname()[1]
    if host in ("0.0.0.0", "::") or is_loopback(host):  # noqa: S104 - shown, not bound
        host = "localhost"
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    click.echo(f"Customer Panel: API {base}/api/v1, documentation {base}/api/docs", err=True)

"""The server: the host, the catalog and the API in one process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from llmasos.database.engine import Database
from llmasos.errors import Unavailable
from llmasos.host import Host, HostParts
from llmasos.i18n import _
from llmasos.secrets.service import Secrets
from llmasos.settings import Settings
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_server.accounts import endpoints as accounts
from llmasos_server.accounts.second_factor import SecondFactors
from llmasos_server.accounts.sessions import Sessions
from llmasos_server.accounts.sign_in import SignIn
from llmasos_server.accounts.tokens import TokenAuthenticator
from llmasos_server.host_log import StderrLog, attached
from llmasos_server.local import Local
from llmasos_server.openai import endpoints as openai
from llmasos_server.rest import catalog as catalog_endpoints
from llmasos_server.rest.application import create_api, serve_host
from llmasos_server.rest.guards import LOOPBACK_NAMES
from llmasos_server.rest.health import access
from llmasos_server.rest.identity import Revocations
from llmasos_server.upgrades import upgrading_by_policy
from llmasos_server.web import routers as web_routers
from llmasos_server.web.under_way import UnderWay

logger = logging.getLogger(__name__)

# How long a client may take to read the end of its stream, once the host has ended it.
SHUTDOWN_SECONDS: Final = 10
# This many simultaneous connections wait to be accepted; more are refused.
BACKLOG: Final = 512


def create_app(
    settings: Settings, *, hosts: tuple[str, ...] = (), parts: HostParts | None = None, warm: bool = False
) -> FastAPI:
    """Create the whole server as an application; its host opens at startup.

    Args:
        settings: The host's settings.
        hosts: Accepted host names besides those of loopback; `*` for any.
        parts: HostParts of the host to use instead of its own.
        warm: Start litellm and the embedded model immediately, in the background.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with Host.open(settings, parts) as host:
            in_background = _noting(host.database)
            serve_host(app, host, TokenAuthenticator(host.database, in_background), lambda: Local.of(host).installer)
            app.state.sessions = Sessions(host.database, in_background)
            app.state.session_ends = Revocations(app.state.sessions)
            factors = SecondFactors(Secrets(settings.home))
            app.state.second_factors = factors
            app.state.sign_in = SignIn(host.database, factors)
            app.state.catalog = Catalog(host.database, BundleStore(settings.home / "bundles"))
            if warm:
                host.warm()
            async with (
                UnderWay() as app.state.under_way,
                upgrading_by_policy(lambda: Local.of(host).installer, host.database),
            ):
                yield

    routers = (catalog_endpoints.router, openai.router, accounts.router, *web_routers.ROUTERS)
    return create_api(lifespan, hosts={*LOOPBACK_NAMES, *hosts}, routers=routers)


def _noting(database: Database) -> Callable[[Callable[[], None]], object]:
    def note(work: Callable[[], None]) -> None:
        # In a thread, without waiting: it only records when a token was last used.
        asyncio.get_running_loop().run_in_executor(None, _quietly, work)

    return note


def _quietly(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        logger.exception("a token's use was not noted")


class Server(uvicorn.Server):
    """Ends invocations before it waits for connections to close, since a stream would stay open forever."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        """Serve `app`, and call `on_ready` once it accepts requests."""
        self._app = app
        self._on_ready = on_ready
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                # Forwarding headers are ignored: only the token identifies a caller.
                proxy_headers=False,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.state.host.stop()
        await super().shutdown(sockets)


def serve(app: FastAPI, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; then end what runs, settle it, and return. Its log is on stderr too."""
    server = Server(app, on_ready)
    # uvicorn raises the signal again at its end, so that a parent sees it; for us this is a normal end.
    with attached(StderrLog()), _access_on_stderr(), contextlib.suppress(KeyboardInterrupt):
        previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, previous)


@contextmanager
def _access_on_stderr() -> Generator[None]:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    level = access.level
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    try:
        yield
    finally:
        access.removeHandler(handler)
        access.setLevel(level)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 selects a free port.

    Raises:
        Unavailable: The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        host.encode("idna")
        # The empty name would mean every address of the machine.
        return socket.create_server((host or ".", port), family=family, backlog=BACKLOG)
    except UnicodeError:
        raise _unlistenable(host, port, socket.gaierror(socket.EAI_NONAME, "")) from None
    except OSError as error:
        raise _unlistenable(host, port, error) from error


def _unlistenable(host: str, port: int, error: OSError) -> Unavailable:
    if error.errno == errno.EADDRINUSE:
        return Unavailable(
            _(
                "Port {port} on {host} is taken: choose another with --port, or end what listens there.",
                port=port,
                host=host,
            ),
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unavailable(
            _("Port {port} needs more rights than this user has: choose one above 1023 with --port.", port=port),
        )
    return Unavailable(
        _(
            "The server cannot listen on {host}: {strerror}. Give an address of this machine with --host.",
            host=repr(host),
            strerror=(
                # Names that cannot be resolved have negative numbers.
                _("no host has this name") if (error.errno or 0) < 0 else os.strerror(error.errno or 0)
            ),
        ),
    )

"""Identifies the caller by a bearer token, and by nothing else that a request contains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Final, Protocol, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from llmasos.errors import NotFound, Unauthenticated
from llmasos.home import WORKSPACE
from llmasos.i18n import _, negotiate
from llmasos.kernel.invocation import Principal
from llmasos_server.rest.guards import is_loopback
from llmasos_server.rest.problems import ScopeMissing

logger = logging.getLogger(__name__)


class TokenScope(StrEnum):
    """What a token allows. `admin` allows what the others do, and sees the whole workspace."""

    RUN = "run"
    """Run actions, and cancel one's own invocations."""
    READ = "read"
    """See installations, one's own invocations, usage, quotas and models."""
    INSTALL = "install"
    """Install, set, upgrade and remove apps within the workspace's policy, and keep one's secrets and stored data."""
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token authenticates, and what it allows."""

    principal: Principal
    scopes: frozenset[TokenScope]
    apps: frozenset[str] | None = None
    """The only apps that the token reaches; None: every app of the workspace."""
    token_id: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether the caller sees data of other users of the workspace."""
        return TokenScope.ADMIN in self.scopes

    @property
    def operates_host(self) -> bool:
        """Whether the caller administers the host: is an administrator of the workspace that it belongs to."""
        return self.is_admin and self.principal.workspace == WORKSPACE

    def may(self, scope: TokenScope) -> bool:
        """Whether the token allows `scope`."""
        return scope in self.scopes or self.is_admin

    def reaches(self, app_id: str | None) -> bool:
        """Whether the token may use an app; with None, whether it may call without an app, as a bound token may not."""
        return self.apps is None or app_id in self.apps


class Credentials(Protocol):
    """Tokens or sessions that may end while a request runs."""

    def is_good(self, id_: str, /) -> bool:
        """Whether one that was recognised is still valid: neither expired nor ended, by any process."""
        ...


class Authenticator(Protocol):
    """Authenticates tokens. `llmasos_server.accounts` implements it."""

    def authenticate(self, token: str) -> Caller | None:
        """Whom a token authenticates; None if it is unknown, expired or revoked. Takes about a millisecond."""
        ...

    def is_good(self, token_id: str) -> bool:
        """Whether an authenticated token is still valid: neither expired nor revoked, by any process."""
        ...


# How often a running request checks that its token is still valid.
RECHECK_SECONDS: Final = 1.0


class Revocations:
    """Looks whether tokens or sessions are still good: once a second for each, however many wait for it."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._watches: dict[str, tuple[asyncio.Task[None], list[int]]] = {}

    async def until_revoked(self, token_id: str) -> None:
        """Wait until a token is good no more."""
        watch = self._watches.get(token_id)
        if watch is None or watch[0].done():
            watch = self._watches[token_id] = asyncio.create_task(self._watch(token_id)), [0]
        task, waiting = watch
        waiting[0] += 1
        try:
            await asyncio.shield(task)
        finally:
            waiting[0] -= 1
            if not waiting[0]:
                task.cancel()
                if self._watches.get(token_id) is watch:
                    del self._watches[token_id]

    async def _watch(self, token_id: str) -> None:
        # The database says it: a token is mostly revoked by a command, which is another process.
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                if not self._credentials.is_good(token_id):
                    return
            except Exception:  # the database may be away for a while
                logger.exception("a token could not be looked up; retrying")


async def until_revoked(request: Request, caller: Caller) -> None:
    """Wait until the caller's token is no longer valid."""
    await cast("Revocations", request.app.state.revocations).until_revoked(caller.token_id)


_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token made with `llmasos tokens create`.")


def _authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Caller:
    if credentials is None:
        raise Unauthenticated(
            _("Send a token as `Authorization: Bearer …`; make one with `llmasos tokens create`."),
        )
    known = cast("Authenticator", request.app.state.authenticator).authenticate(credentials.credentials)
    if known is None:
        raise Unauthenticated(
            _("The token is unknown, expired or revoked; make another with `llmasos tokens create`."),
        )
    spoken = request.headers.get("accept-language", "")
    return replace(known, principal=replace(known.principal, locale=negotiate(spoken)))


def require(scope: TokenScope) -> Callable[..., object]:
    """Make a dependency that returns the caller, whose token must allow `scope`."""

    # Async, so that it runs on the event loop: one indexed read is faster than a switch to a thread and back.
    async def caller(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> Caller:
        known = _authenticate(request, credentials)
        if not known.may(scope):
            raise ScopeMissing(
                _(
                    "This needs a token with the scope {scope!r}: `llmasos tokens create --scope {scope}`.",
                    scope=scope.value,
                ),
            )
        return known

    return caller


async def _watcher(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> None:
    """Admit a caller that may see metrics: a program on this machine, or the holder of a token."""
    if request.client is not None and is_loopback(request.client.host):
        return
    if not _authenticate(request, credentials).may(TokenScope.READ):
        raise ScopeMissing


Watcher = Annotated[None, Depends(_watcher)]
MayRun = Annotated[Caller, Depends(require(TokenScope.RUN))]
MayRead = Annotated[Caller, Depends(require(TokenScope.READ))]
MayInstall = Annotated[Caller, Depends(require(TokenScope.INSTALL))]
MayAdminister = Annotated[Caller, Depends(require(TokenScope.ADMIN))]


async def _operator(caller: MayAdminister) -> Caller:
    if not caller.operates_host:
        raise NotFound
    return caller


MayOperate = Annotated[Caller, Depends(_operator)]
"""An administrator of the workspace that the host belongs to: its models and their keys serve every workspace."""

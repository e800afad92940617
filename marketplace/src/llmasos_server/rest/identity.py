"""Who calls the server: known by a bearer token, and by nothing that a request says of itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Final, Protocol, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from llmasos.errors import Unauthenticated
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
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token stands for, and what it allows."""

    principal: Principal
    scopes: frozenset[TokenScope]
    apps: frozenset[str] | None = None
    """The only apps that the token reaches; None: every app of the workspace."""
    token_id: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether the caller sees what belongs to others of the workspace."""
        return TokenScope.ADMIN in self.scopes

    def may(self, scope: TokenScope) -> bool:
        """Whether the token allows `scope`."""
        return scope in self.scopes or self.is_admin

    def reaches(self, app_id: str | None) -> bool:
        """Whether the token reaches an app; a call that no app makes is reached only without such a bound."""
        return self.apps is None or app_id in self.apps


class Authenticator(Protocol):
    """Knows tokens. The marketplace's accounts implement it."""

    def authenticate(self, token: str) -> Caller | None:
        """Whom a token stands for; None if it is unknown, expired or revoked. Takes about a millisecond."""
        ...

    def is_good(self, token_id: str) -> bool:
        """Whether a token that was known still is: neither expired nor revoked, in whatever process."""
        ...


# How soon what runs for a token is ended once the token is revoked or has expired.
RECHECK_SECONDS: Final = 1.0


async def until_revoked(request: Request, caller: Caller) -> None:
    """Wait until the caller's token is good no more."""
    authenticator = cast("Authenticator", request.app.state.authenticator)
    # The database says it: a token is mostly revoked by a command, which is another process.
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        try:
            if not authenticator.is_good(caller.token_id):
                return
        except Exception:  # the database may be away for a while
            logger.exception("a token could not be looked up; retrying")


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
    """A dependency: the caller, whose token must allow `scope`."""

    # Async, so that it runs on the event loop: one indexed read is shorter than the way to a thread and back.
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
    """Whoever may see how the server does: a program on this machine, or the holder of a token."""
    if request.client is not None and is_loopback(request.client.host):
        return
    if not _authenticate(request, credentials).may(TokenScope.READ):
        raise ScopeMissing


Watcher = Annotated[None, Depends(_watcher)]
MayRun = Annotated[Caller, Depends(require(TokenScope.RUN))]
MayRead = Annotated[Caller, Depends(require(TokenScope.READ))]
MayAdminister = Annotated[Caller, Depends(require(TokenScope.ADMIN))]

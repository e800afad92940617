"""`/api/v1/secrets`: sets, lists and removes secrets. Values are taken, and never returned."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request
from pydantic import Field

from llmasos.bundles.manifest import APP_ID
from llmasos.errors import Invalid, NotFound, Unauthenticated, Unavailable
from llmasos.i18n import _
from llmasos.kernel.invocation import Principal
from llmasos.secrets import SecretOwner, Secrets
from llmasos_server.rest.bodies import BODY_ERRORS, Document, documents_router
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import Caller, MayInstall, MayRead
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, page_of
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel

router = documents_router("secrets")

SecretName = Annotated[str, Path(max_length=64, description="Lower-case letters, digits and underscores.")]


class SecretView(ApiModel):
    """A secret that is set. Its value is never shown."""

    name: str
    app: str | None = Field(description="The app whose requests carry it; null: the host's own.")


class NewSecret(Document):
    """The value of a secret."""

    value: str = Field(max_length=10_000, description="One line; it is stored encrypted.", examples=["sk-…"])
    app: str | None = Field(
        default=None,
        max_length=129,
        description="The app whose requests carry it; without it, the host's own: a model's key, for administrators.",
        examples=["acme/translator"],
    )


# Plain functions: they run in threads, since the key may have to be derived or made.


@router.get(
    "/secrets",
    operation_id="list_secrets",
    summary="List secrets",
    responses=responses(Unauthenticated, ScopeMissing, InvalidCursor),
)
def list_secrets(
    request: Request, caller: MayRead, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[SecretView]:
    """The names of the caller's own secrets, by app; for administrators of the host, of the host's own too."""
    host, me = host_of(request), caller.principal
    secrets = Secrets(host.settings.home)
    with host.database.read() as session:
        found = set(secrets.listed(session, me.workspace, me.user))
        if caller.operates_host:
            found |= {("", name) for name in secrets.names(session, _owner(caller, None))}
    reached = [pair for pair in found if caller.reaches(pair[0] or None)]
    shown, following = page_of(reached, lambda pair: pair, limit, cursor, str, str)
    return Page(items=[SecretView(name=name, app=app or None) for app, name in shown], next=following)


@router.put(
    "/secrets/{name}",
    operation_id="set_secret",
    summary="Set a secret",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Invalid, Unavailable, *BODY_ERRORS),
)
def set_secret(request: Request, caller: MayInstall, name: SecretName, new: NewSecret) -> SecretView:
    """Store a secret of the caller's own, in place of any of that name."""
    host, owner = host_of(request), _owner(caller, new.app)
    with host.database.write() as session:
        Secrets(host.settings.home).set(session, owner, name, new.value)
    return SecretView(name=name, app=new.app)


@router.delete(
    "/secrets/{name}",
    operation_id="remove_secret",
    summary="Remove a secret",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Invalid),
)
def remove_secret(
    request: Request,
    caller: MayInstall,
    name: SecretName,
    app: Annotated[str | None, Query(max_length=129, description="Whose it is; without it, the host's own.")] = None,
) -> SecretView:
    """Forget a secret of the caller's own. Requests that need it fail from now on."""
    host, owner = host_of(request), _owner(caller, app)
    with host.database.write() as session:
        Secrets(host.settings.home).remove(session, owner, name)
    return SecretView(name=name, app=app)


def _owner(caller: Caller, app: str | None) -> SecretOwner:
    """Whose a secret is.

    Raises:
        NotFound: The token does not reach the app, or the caller does not operate the host.
        Invalid: The app's id is not one.
    """
    if app is None:
        if not caller.operates_host:
            raise NotFound(_("Only an administrator of the host sets its own secrets; name an app."))
        operator = Principal()
        return SecretOwner(operator.workspace, operator.user)
    if not APP_ID.fullmatch(app):
        raise Invalid(_("{app!r} is not an app's id such as acme/translator.", app=app[:128]))
    if not caller.reaches(app):
        raise NotFound
    return SecretOwner(caller.principal.workspace, caller.principal.user, app)

"""`/apps/…/settings`: what an installed app may do, how it is set, what it keeps, and its removal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias, cast

from sqlmodel import Session
from starlette.datastructures import FormData
from starlette.responses import Response

from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import HttpPermission, Permission, SecretPlace, SecretsPermission
from llmasos.capabilities import stored_data
from llmasos.database.engine import ReadSession
from llmasos.errors import LlmasosError, NotFound
from llmasos.i18n import Message, _
from llmasos.installs import repository
from llmasos.installs.installer import Installer
from llmasos.installs.tables import InstalledRelease
from llmasos.installs.wording import describe, describe_bytes, describe_limits
from llmasos.secrets import SecretOwner, Secrets
from llmasos_server.local import installer_of
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.cards import card, catalog_of
from llmasos_server.web.form_values import Sent, filled, part, read, sent_of
from llmasos_server.web.forms import config_schema, form_of
from llmasos_server.web.page import Forbidden, Shown, View, pages, redirect
from llmasos_server.web.shapes import shape_of
from llmasos_server.web.store import state_of

router = pages()

Change: TypeAlias = Literal["revoke", "revoke-host", "rollback", "remove", "delete-data", "secret", "remove-secret"]

# What a change of this page says when it is done, by the word in its address.
DONE: Final[dict[str, Message]] = {
    "revoke": _("The permission is taken back, and holds no more from now on."),
    "revoke-host": _("It no longer reaches that server."),
    "config": _("Your settings are saved."),
    "rollback": _("The earlier release runs again."),
    "delete-data": _("What it kept for you is deleted."),
    "secret": _("The secret is saved."),
    "remove-secret": _("The secret is removed."),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission of an installed app, as it stands."""

    capability: str
    text: str
    reason: str
    granted: bool
    hosts: tuple[str, ...] = ()
    """The servers that may be taken back one by one, if there are several."""


@router.get("/apps/{publisher}/{name}/settings")
async def settings(view: Shown, publisher: str, name: str, done: str = "") -> Response:
    """Everything that can be changed about an installed app."""
    view.require(TokenScope.READ)
    return await asyncio.to_thread(_page, view, f"{publisher}/{name}", done=done)


@router.post("/apps/{publisher}/{name}/settings/config")
async def configure(view: Shown, publisher: str, name: str) -> Response:
    """Save the values of its form."""
    view.require(TokenScope.INSTALL)
    form, app_id, me = await view.form(), f"{publisher}/{name}", view.principal

    def save() -> Response:
        with host_of(view.request).database.read() as session:
            release = repository.require_current(session, me.workspace, app_id)[1]
        fields = Manifest.model_validate(release.manifest).config
        sent = sent_of(form.multi_items())
        submitted = read(shape_of(config_schema(fields)), sent)
        values, faults = cast("dict[str, Any]", submitted.value), dict(submitted.faults)
        for key, value in values.items():
            if (fault := fields[key].fault_of(value)) is not None:
                faults.setdefault(part("in", key), fault)
        if "more" in form or faults:
            return _page(view, app_id, sent=sent, faults=faults)
        try:
            _installer(view).configure(me.workspace, app_id, values, me.user)
        except LlmasosError as error:
            return _page(view, app_id, sent=sent, error=error)
        return _back(app_id, "config")

    return await asyncio.to_thread(save)


@router.post("/apps/{publisher}/{name}/settings/{change}")
async def change(view: Shown, publisher: str, name: str, change: Change) -> Response:
    """Change one thing, at once."""
    view.require(TokenScope.INSTALL)
    form, app_id = await view.form(), f"{publisher}/{name}"
    try:
        removed = await _change(view, app_id, change, form)
    except NotFound:
        raise  # the app is not installed, or what was named is gone: another page did the same
    except Forbidden:
        raise
    except LlmasosError as error:
        return await asyncio.to_thread(_page, view, app_id, error=error)
    return redirect(f"/store/{app_id}") if removed else _back(app_id, change)


async def _change(view: View, app_id: str, change: Change, form: FormData) -> bool:
    """Make a change, and return whether the app is gone by it."""
    me, installer = view.principal, _installer(view)
    match change:
        case "revoke":
            await installer.revoke(me.workspace, app_id, _text(form, "capability"), me.user)
        case "revoke-host":
            await installer.revoke_host(me.workspace, app_id, _text(form, "host"), me.user)
        case "rollback":
            await installer.rollback(me.workspace, app_id, me.user)
        case "delete-data":
            await asyncio.to_thread(installer.delete_data, me.workspace, app_id, me.user)
        case "remove":
            delete = _text(form, "data") == "delete"
            if delete and not view.may("admin"):
                raise Forbidden  # it is what the app keeps for everybody in the workspace
            await installer.uninstall(me.workspace, app_id, me.user, delete_data=delete)
        case "secret" | "remove-secret":
            await asyncio.to_thread(_set_secret, view, app_id, form, remove=change == "remove-secret")
    return change == "remove"


def _set_secret(view: View, app_id: str, form: FormData, *, remove: bool) -> None:
    host, me, name = host_of(view.request), view.principal, _text(form, "name")
    secrets, owner = Secrets(host.settings.home), SecretOwner(me.workspace, me.user, app_id)
    with host.database.write() as session:
        release = repository.require_current(session, me.workspace, app_id)[1]
        if name not in {each.name for each in _places(release)}:
            raise NotFound
        if remove:
            secrets.remove(session, owner, name)
        else:
            secrets.set(session, owner, name, _text(form, "value"))


def _page(
    view: View,
    app_id: str,
    *,
    done: str = "",
    sent: Sent | None = None,
    faults: Mapping[str, Message] | None = None,
    error: LlmasosError | None = None,
) -> Response:
    host, me = host_of(view.request), view.principal
    with host.database.read() as session:
        installation, release = repository.require_current(session, me.workspace, app_id)
        manifest = Manifest.model_validate(release.manifest)
        context: dict[str, Any] = {
            "grants": _grants(session, release, manifest, view.locale),
            "secrets": _secrets(session, view, app_id, release),
            "earlier": [each.version for each in repository.releases(session, installation.id, "previous")],
            "waiting": [each.version for each in repository.releases(session, installation.id, "pending")],
            "state": state_of(session, me.workspace, app_id),
        }
        values, size = stored_data.stored(session, (me.workspace, app_id, me.user))
    if manifest.config:
        schema = config_schema(manifest.config)
        shown = filled(shape_of(schema), release.config) if sent is None else sent
        context["form"] = form_of(schema, view.locale, shown, faults)
    status = error.status if error else HTTPStatus.UNPROCESSABLE_ENTITY if faults else HTTPStatus.OK
    return view.render(
        "app_settings.html.jinja",
        status,
        card=card(manifest, view.locale),
        version=release.version,
        limits=describe_limits(manifest.limits, view.locale),
        stored=values,
        stored_size=describe_bytes(size),
        done=DONE.get(done),
        error=error,
        **{"form": None, **context},
    )


def _grants(session: Session, release: InstalledRelease, manifest: Manifest, locale: str) -> list[Grant]:
    held = repository.active_grants(session, release)
    return [
        Grant(
            each.capability,
            describe(held.get(each.capability, each), locale),
            each.reason.in_locale(locale),
            each.capability in held,
            _hosts(held.get(each.capability)),
        )
        for each in manifest.permissions
    ]


def _secrets(
    session: ReadSession, view: View, app_id: str, release: InstalledRelease
) -> list[tuple[SecretPlace, bool]]:
    me = view.principal
    owner = SecretOwner(me.workspace, me.user, app_id)
    known = Secrets(host_of(view.request).settings.home).names(session, owner)
    return [(place, place.name in known) for place in _places(release)]


def _hosts(held: Permission | None) -> tuple[str, ...]:
    return held.hosts if isinstance(held, HttpPermission) and len(held.hosts) > 1 else ()


def _places(release: InstalledRelease) -> list[SecretPlace]:
    permission = Manifest.model_validate(release.manifest).permission("secrets")
    places = permission.secrets if isinstance(permission, SecretsPermission) else ()
    return list({place.name: place for place in places}.values())


def _installer(view: View) -> Installer:
    return installer_of(host_of(view.request), catalog_of(view.request), view.locale)


def _back(app_id: str, done: str) -> Response:
    return redirect(f"/apps/{app_id}/settings?done={done}")


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""

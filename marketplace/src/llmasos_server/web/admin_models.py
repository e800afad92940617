"""`/admin/models`: the models of the host; adding one with its key, and trying it."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.responses import Response

from llmasos.errors import Invalid, LlmasosError
from llmasos.gateway.adding import entry_of_string
from llmasos.gateway.embedded.local import fetched
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.models import TIERS, ModelEntry
from llmasos.gateway.trial import Trial, try_model
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.secrets import SecretOwner, Secrets
from llmasos_server.rest.context import host_of
from llmasos_server.web.admin import operator
from llmasos_server.web.page import Shown, View, field, pages, redirect
from llmasos_server.web.settings import Done

router = pages()

DONE: Final = {
    "added": _("The model is added. Try it, before an app does."),
    "removed": _("The model is removed."),
}
# The key of a model is the host's own secret, of whoever uses the command line.
_HOST: Final = SecretOwner("default", "local")


@router.get("/admin/models")
async def models(view: Shown, done: Done = "") -> Response:
    """Every model in order of preference, and the form to add one."""
    return await asyncio.to_thread(_models, view, done=done)


@router.post("/admin/models")
async def add(view: Shown) -> Response:
    """Add a model, and keep its key."""
    operator(view)
    form = await view.form()
    given = {name: field(form, name).strip() for name in _FIELDS}
    try:
        entry = await _entry(host_of(view.request).gateway, form, given)
        await asyncio.to_thread(_add, view, entry, field(form, "api_key").strip())
    except LlmasosError as error:
        return await asyncio.to_thread(_models, view, error, given=given)
    return redirect("/admin/models?done=added")


@router.post("/admin/models/test")
async def test(view: Shown) -> Response:
    """Ask a model for a few words."""
    operator(view)
    form = await view.form()
    name = field(form, "name")
    try:
        tried = await try_model(host_of(view.request).gateway, name, view.locale)
    except LlmasosError as error:
        return await asyncio.to_thread(_models, view, error, failed=name)
    return await asyncio.to_thread(_models, view, tried=(name, tried))


@router.post("/admin/models/remove")
async def remove(view: Shown) -> Response:
    """Forget an added model. Its key stays among the secrets."""
    operator(view)
    form = await view.form()
    name = field(form, "name")

    def forget() -> None:
        host_of(view.request).gateway.registry.remove(name)
        _note(view, "model.remove", name)

    try:
        await asyncio.to_thread(forget)
    except LlmasosError as error:
        return await asyncio.to_thread(_models, view, error, failed=name)
    return redirect("/admin/models?done=removed")


_FIELDS: Final = ("name", "litellm", "tier", "api_base", "goes_to", "input_price", "output_price")


async def _entry(gateway: Gateway, form: FormData, given: dict[str, str]) -> ModelEntry:
    fields: dict[str, Any] = {
        name: given[name] for name in ("name", "litellm", "tier", "api_base", "goes_to") if given[name]
    }
    if "litellm" not in fields:
        raise Invalid(_("Name the model as litellm does: PROVIDER/MODEL, such as openai/gpt-4o-mini."))
    if given["input_price"] or given["output_price"]:
        fields["price"] = {"input": _price(given["input_price"]), "output": _price(given["output_price"])}
    if field(form, "api_key").strip():
        fields["key"] = f"secret:{_secret(given['name'])}"
    return entry_of_string(fields, *await gateway.known_of(fields["litellm"]))


def _price(text: str) -> int:
    """Micro-USD from USD, for a million tokens."""
    if not re.fullmatch(r"\d{0,6}([.]\d{1,6})?", text):
        raise Invalid(_("Write a price as USD for a million tokens, such as 0.15."))
    return round(float(text or "0") * 1_000_000)


def _secret(name: str) -> str:
    return "model_" + re.sub(r"[^a-z0-9]+", "_", name.casefold())[:50].strip("_")


def _add(view: View, entry: ModelEntry, key: str) -> None:
    host = host_of(view.request)
    host.gateway.registry.add(entry)
    if key:
        try:
            with host.database.write() as session:
                Secrets(host.settings.home).set(session, _HOST, _secret(entry.name), key)
        except LlmasosError:
            host.gateway.registry.remove(entry.name)
            raise
    _note(view, "model.add", entry.name)


def _note(view: View, event: str, name: str) -> None:
    principal = view.principal
    with host_of(view.request).database.write() as session:
        audit.record(session, Line(principal.workspace, principal.user, event, detail={"model": name}))


def _models(
    view: View,
    error: LlmasosError | None = None,
    *,
    failed: str = "",
    given: dict[str, str] | None = None,
    tried: tuple[str, Trial] | None = None,
    done: str = "",
) -> Response:
    operator(view)
    host = host_of(view.request)
    present = fetched(host.settings.home, host.gateway.registry.get)
    return view.render(
        "admin_models.html.jinja",
        error.status if error else 200,
        operator=True,
        models=[(entry, present(entry)) for entry in host.gateway.registry.models.values()],
        tiers=TIERS,
        given=given or dict.fromkeys(_FIELDS, ""),
        tried=tried,
        failed=failed,
        done=DONE.get(done),
        error=error,
    )

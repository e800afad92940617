"""`/store/…/install`, `/upgrade`, `/progress`: consent, and what follows it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias, cast

from fastapi import Request
from sqlmodel import Session
from starlette.datastructures import FormData
from starlette.responses import Response

from llmasos.bundles.parts import ConfigField, ModelPermission, SecretPlace, SecretsPermission
from llmasos.errors import Invalid, LlmasosError
from llmasos.gateway.models import ModelEntry
from llmasos.i18n import Message, _, render
from llmasos.installs import policy, service
from llmasos.installs.form import still_valid
from llmasos.installs.plan import InstallPlan, InstallStep
from llmasos.installs.resolve import Requirement
from llmasos.installs.schemas import plan_document
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.wording import describe, describe_limits
from llmasos.kernel.invocation import Principal
from llmasos.secrets import SecretOwner, Secrets
from llmasos_server.accounts import people
from llmasos_server.local import installer_of
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.cards import AppCard, card, catalog_of
from llmasos_server.web.form_values import Sent, filled, part, read, sent_of
from llmasos_server.web.forms import Form, config_schema, form_of
from llmasos_server.web.page import Shown, View, pages, redirect
from llmasos_server.web.shapes import shape_of
from llmasos_server.web.store import PermissionLine, RiskLine, permission_lines, risk_lines
from llmasos_server.web.under_way import Outcome, UnderWay

router = pages()

Change: TypeAlias = Literal["install", "upgrade"]

_CHANGED: Final = _("This app changed while you were reading. Read again what it asks for; nothing was installed.")


@dataclass(frozen=True, slots=True)
class ConsentStep:
    """One app of a plan, as the consent page shows it."""

    kind: str
    card: AppCard
    version: str
    from_version: str | None
    asked: list[PermissionLine]
    """What needs consent: of an upgrade, only what is new."""
    declined: frozenset[str]
    dropped: list[str]
    risks: list[RiskLine]
    limits: tuple[str, ...]
    limits_rise: bool
    goes_to: list[str]
    """Where what it asks a model goes."""
    secrets: list[SecretPlace]
    form: Form | None


@dataclass(slots=True)
class Decisions:
    """What somebody decided on the consent page."""

    declined: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    config: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    secrets: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """App, name and value."""
    sent: list[Sent] = field(default_factory=list[Sent])
    """The settings of each step, as they were sent."""
    faults: dict[str, Message] = field(default_factory=dict[str, Message])


@router.get("/store/{publisher}/{name}/install")
async def install_page(view: Shown, publisher: str, name: str) -> Response:
    """What an app asks for, before it is installed."""
    return await _consent(view, f"{publisher}/{name}", "install")


@router.get("/store/{publisher}/{name}/upgrade")
async def upgrade_page(view: Shown, publisher: str, name: str) -> Response:
    """What a newer release asks for, while the old one goes on running."""
    return await _consent(view, f"{publisher}/{name}", "upgrade")


@router.post("/store/{publisher}/{name}/install")
async def install(view: Shown, publisher: str, name: str) -> Response:
    """Install an app as was decided."""
    return await _decided(view, f"{publisher}/{name}", "install")


@router.post("/store/{publisher}/{name}/upgrade")
async def upgrade(view: Shown, publisher: str, name: str) -> Response:
    """Upgrade an app as was decided."""
    return await _decided(view, f"{publisher}/{name}", "upgrade")


@router.get("/store/{publisher}/{name}/progress")
async def progress(view: Shown, publisher: str, name: str) -> Response:
    """How an install gets on, or how it ended."""
    view.require(TokenScope.READ)
    app_id = f"{publisher}/{name}"
    found = under_way(view.request).find(view.principal.workspace, app_id)
    if found is None:
        return redirect(f"/store/{app_id}")
    known = await asyncio.to_thread(catalog_of(view.request).release, app_id, found.version)
    waits = isinstance(found.failure, policy.ApprovalNeeded)
    return view.render("progress.html.jinja", preparation=found, app_id=app_id, manifest=known.manifest, waits=waits)


def under_way(request: Request) -> UnderWay:
    """What this server installs now."""
    return cast("UnderWay", request.app.state.under_way)


async def _consent(view: View, app_id: str, change: Change) -> Response:
    view.require(TokenScope.INSTALL)
    plan = await asyncio.to_thread(_plan, view, app_id, change)
    if not plan.steps:
        return redirect(f"/store/{app_id}")
    return await asyncio.to_thread(_page, view, plan, change)


async def _decided(view: View, app_id: str, change: Change) -> Response:
    view.require(TokenScope.INSTALL)
    form = await view.form()
    plan = await asyncio.to_thread(_plan, view, app_id, change)
    if not plan.steps:
        return redirect(f"/store/{app_id}")
    if form.get("bound") != bound(plan):
        return await asyncio.to_thread(_page, view, plan, change, error=_CHANGED)
    decisions = _read(plan, form)
    error = _refusal(plan, form, decisions)
    if "more" in form or error is not None or decisions.faults:
        return await asyncio.to_thread(_page, view, plan, change, decisions, error=error)
    answers = ConsentAnswers(agreed=True, declined=decisions.declined, config=decisions.config)
    principal = view.principal
    work = _carry_out(view, plan, answers, decisions, principal)
    under_way(view.request).begin(principal.workspace, app_id, plan.version, work)
    return redirect(f"/store/{app_id}/progress")


async def _carry_out(
    view: View, plan: InstallPlan, answers: ConsentAnswers, decisions: Decisions, principal: Principal
) -> Outcome:
    host = host_of(view.request)
    installer = installer_of(host, catalog_of(view.request), principal.locale)
    results = await installer.carry_out(plan, answers, principal.user)
    notices = [each.failure.message for each in results if each.failure is not None]

    def keep(app_id: str, name: str, value: str) -> None:
        with host.database.write() as session:
            owner = SecretOwner(principal.workspace, principal.user, app_id)
            Secrets(host.settings.home).set(session, owner, name, value)

    for app_id, name, value in decisions.secrets:
        try:
            await asyncio.to_thread(keep, app_id, name, value)
        except LlmasosError as error:
            notices.append(error.message)
    return Outcome(tuple(results), tuple(notices))


def bound(plan: InstallPlan) -> str:
    """What a consent is bound to: the digest of every release, and every word of what was asked for."""
    return hashlib.sha256(json.dumps(plan_document(plan, "en"), sort_keys=True).encode()).hexdigest()


def _plan(view: View, app_id: str, change: Change) -> InstallPlan:
    catalog, me = catalog_of(view.request), view.principal
    catalog.app(app_id)
    with catalog.database.read() as session:
        administers = people.is_administrator(session, me.workspace, me.user)
        policy.check_may_change(policy.policy_of(session, me.workspace), administers)
    installer = installer_of(host_of(view.request), catalog, view.locale)
    make = installer.plan_install if change == "install" else installer.plan_upgrade
    return make(me.workspace, Requirement(app_id))


def _read(plan: InstallPlan, form: FormData) -> Decisions:
    decisions = Decisions()
    allowed = form.getlist("allow")
    for number, step in enumerate(plan.steps):
        decisions.declined[step.app_id] = frozenset(
            each.capability for each in step.request.optional if f"{step.app_id} {each.capability}" not in allowed
        )
        for place in _places(step):
            value = form.get(f"secret/{step.app_id}/{place.name}")
            if isinstance(value, str) and value.strip():
                decisions.secrets.append((step.app_id, place.name, value))
        fields = _fields(step)
        sent = sent_of(form.multi_items(), _prefix(number))
        decisions.sent.append(sent)
        if fields:
            submitted = read(shape_of(config_schema(fields)), sent, _prefix(number))
            decisions.faults |= submitted.faults
            values = cast("dict[str, Any]", submitted.value)
            for key, value in values.items():
                if (fault := fields[key].fault_of(value)) is not None:
                    decisions.faults.setdefault(part(_prefix(number), key), fault)
            decisions.config[step.app_id] = values
    return decisions


def _refusal(plan: InstallPlan, form: FormData, decisions: Decisions) -> Message | str | None:
    """Why the decisions cannot be carried out, apart from single fields."""
    typed = form.get("confirm")
    if "more" in form or decisions.faults:
        return None
    if _is_dangerous(plan) and (not isinstance(typed, str) or typed.strip().lower() != plan.app_id):
        return _("To go on, write {app} into the last field: this combination is dangerous.", app=plan.app_id)
    answers = ConsentAnswers(agreed=True, declined=decisions.declined, config=decisions.config)
    try:
        service.check_answers(plan, answers)
    except Invalid as error:
        return error.message
    return None


def _is_dangerous(plan: InstallPlan) -> bool:
    return any(step.request.is_needed and step.request.level == "danger" for step in plan.steps)


def _prefix(number: int) -> str:
    return f"config{number}"


def _fields(step: InstallStep) -> dict[str, ConfigField]:
    """The settings that are asked for: of an upgrade, only those without a value from before."""
    if step.kind == "grant":
        return {}
    kept = still_valid(step.bundle.manifest, step.config)
    return {name: each for name, each in step.bundle.manifest.config.items() if name not in kept}


def _places(step: InstallStep) -> list[SecretPlace]:
    """The secrets that a step newly asks for."""
    found = [each.permission for each in step.request.permissions if each.needs_consent]
    places = [place for each in found if isinstance(each, SecretsPermission) for place in each.secrets]
    return list({place.name: place for place in places}.values())


def _page(
    view: View,
    plan: InstallPlan,
    change: Change,
    decisions: Decisions | None = None,
    *,
    error: Message | str | None = None,
) -> Response:
    host = host_of(view.request)
    models = list(host.gateway.registry.models.values())
    with host.database.read() as session:
        known = {step.app_id: _known_secrets(session, view, step.app_id) for step in plan.steps}
    steps = [
        _step(step, view.locale, models, known[step.app_id], _given(step, number, view.locale, decisions))
        for number, step in enumerate(plan.steps)
    ]
    refused = error is not None or (decisions is not None and bool(decisions.faults))
    return view.render(
        "install.html.jinja",
        HTTPStatus.UNPROCESSABLE_ENTITY if refused else HTTPStatus.OK,
        plan=plan,
        change=change,
        steps=steps,
        main=steps[-1],
        bound=bound(plan),
        danger=_is_dangerous(plan),
        error=error,
        secret_values={f"{app}/{name}": value for app, name, value in decisions.secrets} if decisions else {},
    )


def _known_secrets(session: Session, view: View, app_id: str) -> list[str]:
    owner = SecretOwner(view.principal.workspace, view.principal.user, app_id)
    return Secrets(host_of(view.request).settings.home).names(cast("Any", session), owner)


@dataclass(frozen=True, slots=True)
class Given:
    """What was filled in for a step so far."""

    declined: frozenset[str]
    form: Form | None


def _given(step: InstallStep, number: int, locale: str, decisions: Decisions | None) -> Given:
    fields = _fields(step)
    declined = decisions.declined[step.app_id] if decisions else frozenset[str]()
    if not fields:
        return Given(declined, None)
    schema, prefix = config_schema(fields), _prefix(number)
    sent = decisions.sent[number] if decisions else filled(shape_of(schema), {}, prefix)
    return Given(declined, form_of(schema, locale, sent, decisions.faults if decisions else None, prefix=prefix))


def _step(
    step: InstallStep, locale: str, models: Sequence[ModelEntry], known_secrets: list[str], given: Given
) -> ConsentStep:
    manifest, request = step.bundle.manifest, step.request
    asked = [each.permission for each in request.permissions if each.needs_consent]
    model = next((each for each in asked if isinstance(each, ModelPermission)), None)
    return ConsentStep(
        step.kind,
        card(manifest, locale),
        manifest.version,
        request.from_version,
        permission_lines(asked, locale),
        given.declined,
        [describe(each, locale) for each in request.dropped],
        risk_lines(request.risks, locale) if request.is_needed else [],
        describe_limits(manifest.limits, locale),
        bool(request.raised_limits),
        goes_to(model, models, locale) if model else [],
        [place for place in _places(step) if place.name not in known_secrets],
        given.form,
    )


def goes_to(permission: ModelPermission, models: Sequence[ModelEntry], locale: str) -> list[str]:
    """Where a text goes that an app gives to a model: what the models that it may ask run on."""
    fitting = [each for each in models if each.tier in permission.tiers or each.name in permission.models]
    places = dict.fromkeys(each.goes_to for each in fitting)
    return [render(_("this computer"), locale) if each == "local" else each for each in places]

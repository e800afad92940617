"""`/api/v1/installations`, `/usage`, `/quotas`, `/models`: the state of a workspace."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlmodel import Session

from llmasos.bundles.actions import checked_actions
from llmasos.errors import Invalid, NotFound, Unauthenticated
from llmasos.gateway.embedded.local import fetched
from llmasos.gateway.models import ModelEntry
from llmasos.installs import repository
from llmasos.installs.tables import Installation, InstalledRelease
from llmasos.quotas import service as quotas
from llmasos.quotas.repository import UsageTotal
from llmasos.quotas.service import QuotaStatus
from llmasos_marketplace.catalog.schemas import LocalText
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.identity import Caller, MayRead
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, page_of
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ActionView, ApiModel, utc

router = APIRouter(prefix=PREFIX)

_REFUSED = responses(Unauthenticated, ScopeMissing, InvalidCursor)


class InstallationView(ApiModel):
    """An installed app: its current release and its actions."""

    id: str
    app: str
    version: str
    runtime: str
    digest: str = Field(description="SHA-256 of the bundle, hexadecimal.")
    installed_at: datetime
    installed_by: str
    name: LocalText
    waiting: str | None = Field(description="The release that waits for consent; null if none does.")
    actions: list[ActionView]


class GrantView(ApiModel):
    """The grant of one capability."""

    capability: str
    scope: dict[str, Any]
    revoked_at: datetime | None


class UsageTotalView(ApiModel):
    """An app's use of a model on a day."""

    day: date | None
    app: str = Field(description="Empty for calls that no app made.")
    model: str = Field(description="Empty for what no model was called for.")
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_micro_usd: int
    unpriced_calls: int = Field(description="Calls whose price is unknown; they are not in the cost.")
    fuel: int


class QuotaView(ApiModel):
    """A limit on a meter over a window, and its current use."""

    scope: str
    scope_id: str
    meter: str
    window: str
    limit: int
    used: int
    reserved: int
    overrun: int = Field(description="What a provider returned beyond what was reserved; it counts like `used`.")
    left: int
    source: str = Field(description="`operator`, or the installation that brought the limit.")
    resets_at: datetime | None = Field(description="Null for a run.")

    @classmethod
    def of(cls, status: QuotaStatus) -> QuotaView:
        """Convert the ledger's status of a quota."""
        name = status.name
        return cls(
            scope=name.scope.value,
            scope_id=name.scope_id,
            meter=name.meter.value,
            window=name.window.value,
            limit=status.limit,
            used=status.used,
            reserved=status.reserved,
            overrun=status.overrun,
            source=name.source,
            left=status.left,
            resets_at=status.resets_at,
        )


class PriceView(ApiModel):
    """Micro-USD for a million tokens."""

    input: int
    output: int


class ModelView(ApiModel):
    """A model, by the name that apps and quotas use."""

    name: str
    kind: str
    tier: str
    context_window: int
    goes_to: str = Field(description="Where the data goes: `local`, or the provider.")
    tasks: list[str] = Field(description="What it is fit for; empty: everything.")
    languages: list[str] = Field(description="BCP 47; empty: every one.")
    price: PriceView | None = Field(description="Null if it is unknown.")
    present: bool = Field(description="False for an embedded model whose weights are not fetched yet.")

    @classmethod
    def of(cls, entry: ModelEntry, present: bool) -> ModelView:
        """Convert an entry, without its address and key."""
        return cls(
            name=entry.name,
            kind=entry.kind,
            tier=entry.tier,
            context_window=entry.context_window,
            goes_to=entry.goes_to,
            tasks=list(entry.tasks),
            languages=list(entry.languages),
            price=PriceView(input=entry.price.input, output=entry.price.output) if entry.price else None,
            present=present,
        )


# Plain functions run in threads: these read many rows and decode their JSON.


@router.get(
    "/installations",
    operation_id="list_installations",
    summary="List installations",
    tags=["installations"],
    responses=_REFUSED,
)
def list_installations(
    request: Request, caller: MayRead, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[InstallationView]:
    """The apps that are installed in the caller's workspace, ordered by id."""
    with host_of(request).database.read() as session:
        rows = repository.all_current(session, caller.principal.workspace)
        reached = [row for row in rows if caller.reaches(row[0].app_id)]
        shown, following = page_of(reached, lambda row: (row[0].app_id,), limit, cursor, str)
        items = [
            _installation(found, release, _waiting(session, found), caller.principal.locale) for found, release in shown
        ]
    return Page(items=items, next=following)


@router.get(
    "/installations/{installation}/grants",
    operation_id="list_grants",
    summary="List grants",
    tags=["installations"],
    responses=responses(Unauthenticated, ScopeMissing, NotFound, InvalidCursor),
)
def list_grants(
    request: Request, caller: MayRead, installation: str, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[GrantView]:
    """The grants that the installer consented to, including those revoked since."""
    with host_of(request).database.read() as session:
        release = _release(repository.all_current(session, caller.principal.workspace), caller, installation)
        rows = repository.grants(session, release.id or 0)
        shown, following = page_of(rows, lambda row: (row.capability,), limit, cursor, str)
        items = [
            GrantView(
                capability=row.capability,
                scope=row.scope,
                revoked_at=utc(row.revoked_at) if row.revoked_at else None,
            )
            for row in shown
        ]
    return Page(items=items, next=following)


@router.get(
    "/usage",
    operation_id="read_usage",
    summary="Read usage",
    tags=["usage"],
    responses=responses(Unauthenticated, ScopeMissing, Invalid, InvalidCursor),
)
def read_usage(
    request: Request,
    caller: MayRead,
    *,
    days: Annotated[int, Query(ge=1, le=3660, description="Over how many days, today counted.")] = 30,
    app: Annotated[str | None, Query(max_length=129, description="Only of this app.")] = None,
    user: Annotated[
        str | None, Query(max_length=128, description="Only of this user; another than the caller needs admin.")
    ] = None,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
) -> Page[UsageTotalView]:
    """Totals by day (the newest first), app and model: the caller's own, or with the scope admin the workspace's."""
    principal = caller.principal
    with host_of(request).database.read() as session:
        whose = user if caller.is_admin else principal.user
        totals = [] if user not in (None, whose) else quotas.usage(session, principal.workspace, days, whose, app)
    reached = [total for total in totals if caller.reaches(total.app_id)]
    shown, following = page_of(reached, _newest_first, limit, cursor, int, str, str)
    items = [
        UsageTotalView(
            day=total.day,
            app=total.app_id,
            model=total.model,
            calls=total.calls,
            prompt_tokens=total.prompt_tokens,
            completion_tokens=total.completion_tokens,
            cost_micro_usd=total.cost_micro_usd,
            unpriced_calls=total.unpriced_calls,
            fuel=total.fuel,
        )
        for total in shown
    ]
    return Page(items=items, next=following)


@router.get("/quotas", operation_id="list_quotas", summary="List quotas", tags=["usage"], responses=_REFUSED)
def list_quotas(
    request: Request, caller: MayRead, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[QuotaView]:
    """The quotas of the workspace that apply to the caller, with their current use."""
    with host_of(request).database.read() as session:
        found = quotas.list_quotas(session, caller.principal.workspace)
    met = [status for status in found if _meets(caller, status)]
    shown, following = page_of(met, lambda status: tuple(status.name.detail.values()), limit, cursor, *[str] * 5)
    return Page(items=[QuotaView.of(status) for status in shown], next=following)


@router.get("/models", operation_id="list_models", summary="List models", tags=["models"], responses=_REFUSED)
def list_models(
    request: Request, caller: MayRead, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[ModelView]:
    """The models of this host, in order of preference."""
    host = host_of(request)
    present = fetched(host.settings.home, host.gateway.registry.get)
    ranked = enumerate(host.gateway.registry.models.values())
    shown, following = page_of(ranked, lambda pair: (pair[0],), limit, cursor, int)
    return Page(items=[ModelView.of(entry, present(entry)) for _, entry in shown], next=following)


def _installation(found: Installation, release: InstalledRelease, waiting: str | None, locale: str) -> InstallationView:
    return InstallationView(
        id=found.id,
        app=found.app_id,
        version=release.version,
        runtime=release.runtime,
        digest=release.digest,
        installed_at=utc(found.installed_at),
        installed_by=found.installed_by,
        name=LocalText.model_validate(release.manifest["name"]),
        waiting=waiting,
        actions=[ActionView.of(action, locale) for action in checked_actions(release.actions)],
    )


def _waiting(session: Session, found: Installation) -> str | None:
    return next((each.version for each in repository.releases(session, found.id, "pending")), None)


def _release(
    rows: list[tuple[Installation, InstalledRelease]], caller: Caller, installation_id: str
) -> InstalledRelease:
    for found, release in rows:
        if found.id == installation_id and caller.reaches(found.app_id):
            return release
    raise NotFound


def _newest_first(total: UsageTotal) -> tuple[int, str, str]:
    return -total.day.toordinal() if total.day else 0, total.app_id, total.model


def _meets(caller: Caller, status: QuotaStatus) -> bool:
    """Whether a quota applies to the caller; other users' quotas are private."""
    match status.name.scope.value:
        case "user":
            return caller.is_admin or status.name.scope_id == caller.principal.user
        case "app":
            return caller.reaches(status.name.scope_id)
        case _:
            return caller.apps is None

"""Setting, removing and listing quotas, and what was used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Protocol

from sqlmodel import Session

from llmasos.bundles.manifest import APP_ID
from llmasos.database.engine import WriteSession, utc_now
from llmasos.errors import Invalid, NotFound
from llmasos.i18n import _
from llmasos.quotas import repository
from llmasos.quotas.history import used_before
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.refusals import set_command
from llmasos.quotas.repository import UsageTotal
from llmasos.quotas.tables import LedgerWindow, Quota
from llmasos.quotas.windows import window_end, window_start

OPERATOR = "operator"
# SQLite and PostgreSQL keep 64-bit integers; half of that leaves room to add to it.
MAX_LIMIT = 1 << 62


class Recorder(Protocol):
    """Writes a line of the audit log in the same transaction."""

    def __call__(self, event: str, detail: Mapping[str, Any]) -> object:
        """Write it."""
        ...


@dataclass(frozen=True, slots=True)
class QuotaName:
    """Identifies a quota: a meter over a window, for one subject."""

    workspace: str
    scope: Scope
    scope_id: str
    meter: Meter
    window: Window
    source: str = OPERATOR

    @property
    def detail(self) -> dict[str, str]:
        """Return the form that the audit log keeps."""
        return {
            "scope": self.scope.value,
            "scope_id": self.scope_id,
            "meter": self.meter.value,
            "window": self.window.value,
            "source": self.source,
        }

    def row(self, limit: int) -> Quota:
        """Return a row."""
        return Quota(
            workspace_id=self.workspace,
            scope=self.scope.value,
            scope_id=self.scope_id,
            meter=self.meter.value,
            window=self.window.value,
            limit=limit,
            source=self.source,
            created_at=utc_now(),
        )


@dataclass(frozen=True, slots=True)
class QuotaStatus:
    """A quota and what its current window holds. `resets_at` is None for a run."""

    name: QuotaName
    limit: int
    used: int
    reserved: int
    overrun: int
    resets_at: datetime | None

    @property
    def left(self) -> int:
        """What a call may still use."""
        return max(0, self.limit - self.used - self.reserved - self.overrun)


def set_quota(session: WriteSession, record: Recorder, name: QuotaName, limit: int) -> Quota:
    """Set a quota, or change its limit. What its window has already used counts.

    Raises:
        Invalid: The limit or the subject's name is not valid.
    """
    if not 0 <= limit <= MAX_LIMIT:
        raise Invalid(_("A limit is from 0 to {max_limit:,}.", max_limit=MAX_LIMIT))
    _check_name(name)
    row = repository.find_quota(session, name.row(limit))
    before = row.limit if row else None
    if row is None:
        row = add_quota(session, name.row(limit))
    row.limit = limit
    session.add(row)
    session.flush()
    record("quota.set", {**name.detail, "limit": limit, "before": before})
    return row


def _check_name(name: QuotaName) -> None:
    if name.scope is Scope.APP and not APP_ID.fullmatch(name.scope_id):
        raise Invalid(
            _("{app!r} is not an app's id, such as acme/translator.", app=name.scope_id),
        )
    if not name.scope_id or len(name.scope_id) > 255:
        raise Invalid(_("Name the {scope}.", scope=name.scope.value))


def add_quota(session: WriteSession, quota: Quota) -> Quota:
    """Add a new quota, including what its window used before it was set."""
    session.add(quota)
    session.flush()
    starts_at = window_start(Window(quota.window), int(utc_now().timestamp()))
    used = used_before(session, quota, starts_at)
    if used:
        limit = max(quota.limit, used)
        session.add(LedgerWindow(quota_id=quota.id or 0, starts_at=starts_at, limit=limit, used=used))
        session.flush()
    return quota


def check_subject(session: Session, name: QuotaName) -> None:
    """Refuse a quota for an app that is not installed: it would limit nothing.

    Raises:
        Invalid: Its name is not an app's.
        NotFound: It is not installed.
    """
    _check_name(name)
    if name.scope is not Scope.APP:
        return
    installed = repository.installed_apps(session, name.workspace)
    if name.scope_id in installed:
        return
    near = get_close_matches(name.scope_id, installed, 1)
    if near:
        raise NotFound(_("No app {app!r} is installed here; did you mean {near!r}?", app=name.scope_id, near=near[0]))
    raise NotFound(_("No app {app!r} is installed here; `llmasos list` shows those that are.", app=name.scope_id))


def remove_quota(session: WriteSession, record: Recorder, name: QuotaName) -> None:
    """Remove a quota and what was counted for it.

    Raises:
        NotFound: There is none.
    """
    row = repository.find_quota(session, name.row(0))
    if row is None:
        command = set_command(name.scope, name.scope_id, name.meter, name.window, "N")
        raise NotFound(
            _("There is no such quota; `llmasos quota list` shows them, and this sets it: {command}", command=command),
        )
    limit = row.limit
    session.delete(row)
    session.flush()
    record("quota.remove", {**name.detail, "limit": limit})


def list_quotas(session: Session, workspace: str) -> list[QuotaStatus]:
    """Every quota of a workspace with its current use."""
    now = int(utc_now().timestamp())
    found: list[QuotaStatus] = []
    for row in repository.quotas_of(session, workspace):
        window = Window(row.window)
        ends = window_end(window, now)
        state = repository.windows_of(session, row.id or 0, window_start(window, now))
        found.append(
            QuotaStatus(
                QuotaName(workspace, Scope(row.scope), row.scope_id, Meter(row.meter), window, row.source),
                row.limit,
                state.used if state else 0,
                state.reserved if state else 0,
                state.overrun if state else 0,
                datetime.fromtimestamp(ends, UTC) if ends is not None else None,
            )
        )
    return found


def usage(
    session: Session, workspace: str, days: int = 30, user: str | None = None, app: str | None = None
) -> list[UsageTotal]:
    """Totals by day, app and model over the last `days` days, today counted.

    Raises:
        Invalid: `days` is below 1 or over ten years.
    """
    if not 1 <= days <= 3660:
        raise Invalid(_("Days are from 1 to 3660."))
    since: date = utc_now().date() - timedelta(days=days - 1)
    return repository.usage_totals(session, workspace, since, user, app)

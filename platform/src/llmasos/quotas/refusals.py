"""The messages of a refused call: which quota, how much of it is spent, when it resets, how to raise it."""

from __future__ import annotations

from datetime import UTC, datetime

from llmasos.errors import QuotaExceeded
from llmasos.i18n import _
from llmasos.quotas.ledger_batch import WindowState
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.repository import Applying
from llmasos.quotas.run_limits import RunLimit
from llmasos.quotas.windows import window_end

_PER = {
    Window.RUN: _("a run"),
    Window.MINUTE: _("a minute"),
    Window.HOUR: _("an hour"),
    Window.DAY: _("a day"),
    Window.MONTH: _("a month"),
}
_UNITS = {
    Meter.TOKENS: _("tokens"),
    Meter.COST: _("micro-USD"),
    Meter.INVOCATIONS: _("runs"),
    Meter.COMPUTE: _("units of compute"),
    Meter.REQUESTS: _("HTTP requests"),
}
_SCOPES = {
    Scope.WORKSPACE: _("workspace"),
    Scope.USER: _("user"),
    Scope.APP: _("app"),
    Scope.MODEL: _("model"),
}


def set_command(scope: Scope, scope_id: str, meter: Meter, window: Window, limit: int | str) -> str:
    """The command that sets this quota."""
    whom = "" if scope is Scope.WORKSPACE else f" --{scope.value} {scope_id}"
    return f"llmasos quota set{whom} --meter {meter.value} --window {window.value} --limit {limit}"


def used_up(quota: Applying, state: WindowState, need: int, now: int) -> QuotaExceeded:
    """A quota of the ledger has no room for a call that needs at least `need`."""
    used = state.used + state.overrun
    enough = max(quota.limit * 2, used + state.reserved + need)
    ends = window_end(quota.window, now)
    resets = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC") if ends else ""
    command = set_command(quota.scope, quota.scope_id, quota.meter, quota.window, enough)
    return QuotaExceeded(
        _(
            "The quota of {scope} {name}, {limit:,} {unit} {per}, has no room: {used:,} used, {reserved:,} reserved "
            "by running calls, and this call needs {need:,}. It resets at {resets}; to raise it: {command}",
            scope=_SCOPES[quota.scope],
            name=quota.scope_id,
            limit=quota.limit,
            unit=_UNITS[quota.meter],
            per=_PER[quota.window],
            used=used,
            reserved=state.reserved,
            need=need,
            resets=resets,
            command=command,
        )
    )


def used_up_in_run(quota: Applying | None, run_limit: RunLimit, need: int) -> QuotaExceeded:
    """A limit of one run has no room; `quota` is None for the installation's own limit."""
    limit, left = run_limit.limit, run_limit.room
    if quota is None:
        cure = _("do less in one run, or ask for more under [limits] in llmapp.toml")
    else:
        enough = max(quota.limit * 2, quota.limit - left + need)
        command = set_command(quota.scope, quota.scope_id, run_limit.meter, Window.RUN, enough)
        cure = _("to raise it: {command}", command=command)
    return QuotaExceeded(
        _(
            "One run may use {limit:,} {unit}; {left:,} are left and this call needs {need:,}: {cure}",
            limit=limit,
            unit=_UNITS[run_limit.meter],
            left=left,
            need=need,
            cure=cure,
        )
    )


def unknown_price(quota: Applying, model: str | None) -> QuotaExceeded:
    """A cost quota cannot limit a call whose price is unknown."""
    whom = "" if quota.scope is Scope.WORKSPACE else f" --{quota.scope.value} {quota.scope_id}"
    remove = f"llmasos quota remove{whom} --meter {quota.meter.value} --window {quota.window.value}"
    return QuotaExceeded(
        _(
            "The price of {model} is not known, and {scope} {name} has a cost quota, which never counts an unknown "
            "price as zero. Give the model's price with `llmasos models add`, or remove the quota: {remove}",
            model=model or "?",
            scope=_SCOPES[quota.scope],
            name=quota.scope_id,
            remove=remove,
        )
    )

"""`/usage`: what was used against the limits, by day, app and model."""

from __future__ import annotations

import asyncio
import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Final

from fastapi import Query
from starlette.responses import Response

from llmasos.database.engine import utc_now
from llmasos.quotas import service as quotas
from llmasos.quotas.meters import Scope, Window
from llmasos.quotas.repository import UsageTotal
from llmasos.quotas.service import QuotaStatus
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.charts import Chart, stacked
from llmasos_server.web.page import Shown, View, pages

router = pages()

DAYS: Final = (7, 30, 90)
MEASURES: Final = ("tokens", "cost", "calls", "runs")
_ORDER: Final = (Window.DAY, Window.MONTH, Window.HOUR, Window.MINUTE, Window.RUN)
_COLUMNS: Final = (
    "day", "app", "model", "calls", "prompt_tokens", "completion_tokens", "cost_micro_usd", "unpriced_calls", "fuel",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader asked for in the address; what is not known becomes what is shown first."""

    days: int
    measure: str
    everybody: bool


@dataclass(frozen=True, slots=True)
class Sum:
    """What was used in a period."""

    runs: int
    tokens: int
    cost_micro_usd: int
    unpriced_calls: int

    @classmethod
    def of(cls, totals: list[UsageTotal]) -> Sum:
        """Add totals up."""
        return cls(
            sum(each.calls for each in totals if not each.model),
            sum(each.prompt_tokens + each.completion_tokens for each in totals),
            sum(each.cost_micro_usd for each in totals),
            sum(each.unpriced_calls for each in totals),
        )


Days = Annotated[str, Query(max_length=8)]
Measure = Annotated[str, Query(alias="of", max_length=20)]
Whose = Annotated[str, Query(max_length=20)]


@router.get("/usage")
async def usage(view: Shown, days: Days = "30", measure: Measure = "tokens", whose: Whose = "me") -> Response:
    """Limits, sums and charts."""
    view.require(TokenScope.READ)
    wanted = _wanted(view, days, measure, whose)
    return await asyncio.to_thread(_usage, view, wanted)


@router.get("/usage/export")
async def export(view: Shown, days: Days = "30", whose: Whose = "me") -> Response:
    """The totals as CSV."""
    view.require(TokenScope.READ)
    totals = await asyncio.to_thread(_totals, view, _wanted(view, days, "tokens", whose))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for each in totals:
        row = (each.day, each.app_id, each.model, each.calls, each.prompt_tokens, each.completion_tokens)
        writer.writerow(map(_cell, (*row, each.cost_micro_usd, each.unpriced_calls, each.fuel)))
    headers = {"content-disposition": f'attachment; filename="llmasos-usage-{utc_now():%Y-%m-%d}.csv"'}
    return Response(out.getvalue().encode("utf-8-sig"), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: object) -> str:
    # A spreadsheet would run a text that begins like a formula.
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _wanted(view: View, days: str, measure: str, whose: str) -> Wanted:
    return Wanted(
        next((each for each in DAYS if str(each) == days), 30),
        measure if measure in MEASURES else MEASURES[0],
        whose == "everybody" and view.may(TokenScope.ADMIN),
    )


def _totals(view: View, wanted: Wanted) -> list[UsageTotal]:
    principal = view.principal
    with host_of(view.request).database.read() as session:
        user = None if wanted.everybody else principal.user
        return quotas.usage(session, principal.workspace, max(wanted.days, 31), user)


def _usage(view: View, wanted: Wanted) -> Response:
    principal = view.principal
    with host_of(view.request).database.read() as session:
        limits = [each for each in quotas.list_quotas(session, principal.workspace) if _is_mine(view, each, wanted)]
    totals = _totals(view, wanted)
    today = utc_now().date()
    days = [today - timedelta(days=back) for back in reversed(range(wanted.days))]
    by_app, by_model = _charts(totals, days, wanted.measure)
    return view.render(
        "usage.html.jinja",
        limits=sorted(limits, key=lambda each: _ORDER.index(each.name.window)),
        today=Sum.of([each for each in totals if each.day == today]),
        month=Sum.of([each for each in totals if each.day and each.day >= today.replace(day=1)]),
        charts=[("app", by_app), *([("model", by_model)] if wanted.measure != "runs" else [])],
        wanted=wanted,
        choices=DAYS,
    )


def _is_mine(view: View, status: QuotaStatus, wanted: Wanted) -> bool:
    """Whether a limit applies to the reader; those of other users are theirs."""
    return status.name.scope is not Scope.USER or wanted.everybody or status.name.scope_id == view.principal.user


def _charts(totals: list[UsageTotal], days: list[date], measure: str) -> tuple[Chart, Chart]:
    by_app: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    by_model: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    first = days[0]
    for each in totals:
        amount = _amount(each, measure)
        if amount and each.day and each.day >= first:
            by_app[each.app_id][each.day] += amount
            by_model[each.model][each.day] += amount
    return stacked(days, by_app), stacked(days, by_model)


def _amount(total: UsageTotal, measure: str) -> int:
    match measure:
        case "cost":
            return total.cost_micro_usd
        case "calls":
            return total.calls if total.model else 0
        case "runs":
            return 0 if total.model else total.calls
        case _:
            return total.prompt_tokens + total.completion_tokens

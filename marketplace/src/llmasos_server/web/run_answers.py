"""How a run stands, as pages show it: its answer or its failure, and one line on what it took."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlmodel import Session

from llmasos.errors import NotFound, Unavailable
from llmasos.i18n import _, from_text, ngettext
from llmasos.invocations.content import InvocationContent
from llmasos.invocations.tables import InvocationRow
from llmasos.quotas import service as quotas
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaStatus
from llmasos_server.answers import records_of
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.formats import Formats
from llmasos_server.web.page import View
from llmasos_server.web.presenter import Part, present


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """A run, as its templates show it."""

    row: InvocationRow
    content: InvocationContent | None
    """None if nothing is kept, or not yet."""
    unreadable: str = ""
    """Why what is kept cannot be read."""
    part: Part | None = None
    shown: Part | None = None
    """What a run that did not succeed had shown by then."""
    failure: str = ""
    facts: tuple[str, ...] = ()
    has_table: bool = False

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.row.status == "running"


async def find_run(view: View, id_: str) -> InvocationRow:
    """A run that whoever looks may see: one's own, or with the role of an administrator the workspace's.

    Raises:
        NotFound: There is none, or it is another's.
    """
    known = view.require(TokenScope.READ)
    if len(id_) != 32 or not id_.isalnum():
        raise NotFound
    return await host_of(view.request).invocations.find(
        id_, known.principal, of_anybody=TokenScope.ADMIN in known.role.scopes
    )


async def answer_of(view: View, row: InvocationRow) -> RunAnswer:
    """How a run stands."""
    host = host_of(view.request)
    if row.status == "running":
        given = host.invocations.running_input(row.id)
        return RunAnswer(row, None if given is None else InvocationContent(given))
    try:
        content = await host.invocations.content(row)
    except Unavailable as error:
        return RunAnswer(row, None, unreadable=view.show(error.message), failure=_failure(view, row))
    return await asyncio.to_thread(_ended, view, row, content)


def _ended(view: View, row: InvocationRow, content: InvocationContent | None) -> RunAnswer:
    succeeded = row.status == "succeeded"
    output = content.output if content else None
    with host_of(view.request).database.read() as session:
        left = _left_today(session, row, view)
    return RunAnswer(
        row,
        content,
        part=present(output, view.locale) if succeeded and content and content.output_json else None,
        shown=present(content.shown, view.locale) if content and content.shown else None,
        failure=_failure(view, row),
        facts=(*_facts(view, row), *left),
        has_table=succeeded and records_of(output) is not None,
    )


def _failure(view: View, row: InvocationRow) -> str:
    if row.status == "cancelled":
        return view.show(_("It was stopped."))
    if row.error_message:
        return view.show(from_text(row.error_message))
    return view.show(_("It failed ({code}).", code=row.error_code)) if row.status == "failed" else ""


def _facts(view: View, row: InvocationRow) -> list[str]:
    """What a run took: model, tokens, cost, time."""
    formats = Formats(view.locale)
    tokens = row.prompt_tokens + row.completion_tokens
    facts = [row.model] if row.model else []
    if tokens:
        facts.append(view.show(ngettext("{count:,} token", "{count:,} tokens", count=tokens)))
    if row.cost_micro_usd is None:
        facts.append(view.show(_("cost unknown")))
    elif row.cost_micro_usd:
        facts.append(formats.usd(row.cost_micro_usd))
    facts.append(view.show(_("{seconds} s", seconds=formats.number(round(row.duration_ms / 1000, 1)))))
    return facts


def _left_today(session: Session, row: InvocationRow, view: View) -> list[str]:
    """What is left today of the tightest quota of tokens or cost that such a run is charged to."""
    known = view.signed_in
    if known is None or row.user_id != known.user.id:
        return []
    limits = [each for each in quotas.list_quotas(session, row.workspace_id) if _applies(each, row)]
    if not limits:
        return []
    tightest = min(limits, key=lambda each: each.left / max(1, each.limit))
    formats = Formats(view.locale)
    if tightest.name.meter is Meter.COST:
        return [view.show(_("{left} left today", left=formats.usd(tightest.left)))]
    return [view.show(ngettext("{count:,} token left today", "{count:,} tokens left today", count=tightest.left))]


def _applies(status: QuotaStatus, row: InvocationRow) -> bool:
    name = status.name
    if name.window is not Window.DAY or name.meter not in (Meter.TOKENS, Meter.COST):
        return False
    whose = {Scope.WORKSPACE: name.scope_id, Scope.USER: row.user_id, Scope.APP: row.app_id}
    return name.scope_id == whose.get(name.scope, "")


def input_of(answer: RunAnswer) -> Any:
    """What a run was given; None if that is not known."""
    return answer.content.input if answer.content else None


def day_bounds(day: str) -> tuple[datetime, datetime] | None:
    """The instants at which a day of the server's time zone begins and ends; None if it is no day."""
    try:
        begin = datetime.fromisoformat(day).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        following = datetime.fromordinal(begin.toordinal() + 1)
        return begin.astimezone().astimezone(UTC), following.astimezone().astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None

"""`/apps/{publisher}/{name}`: run an app. The form is made from the action's schema, the answer streams beside it.

A run that was begun here goes on when the page is closed; `?run=` shows it again, while it runs and afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from llmasos.bundles.actions import Action
from llmasos.bundles.manifest import Manifest
from llmasos.errors import Denied, LlmasosError, NotFound
from llmasos.i18n import Message
from llmasos.installs import repository
from llmasos.invocations.actions import InputRejected, action_named, check_input, checked
from llmasos.invocations.events import FollowedInvocation
from llmasos.invocations.idempotency import KeyedRequest
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.invocation import Event, new_id
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.cards import AppCard, card
from llmasos_server.web.form_values import Sent, Submitted, filled, read, sent_of
from llmasos_server.web.forms import form_of
from llmasos_server.web.page import Shown, View, pages, redirect
from llmasos_server.web.run_answers import RunAnswer, answer_of, find_run, input_of
from llmasos_server.web.shapes import shape_of

router = pages()

MAX_FILES: Final = 20


@router.get("/apps/{publisher}/{name}")
async def run_page(view: Shown, publisher: str, name: str, action: str = "", run: str = "") -> Response:
    """The form of an action, and beside it a run."""
    known = view.require(TokenScope.READ)
    app_id = f"{publisher}/{name}"
    actions = host_of(view.request).actions.actions_of(known.principal.workspace, app_id)
    answer: RunAnswer | None = None
    if run:
        row = await find_run(view, run)
        if row.app_id != app_id:
            raise NotFound
        answer = await answer_of(view, row)
        action = action or row.action
    chosen = action_named(actions, action or next(iter(actions)))
    given = input_of(answer) if answer is not None and answer.row.action == chosen.name else None
    shape = shape_of(chosen.input_schema)
    prefilled = sent_of(view.request.query_params.multi_items())
    sent = {**filled(shape, given or {}), **prefilled}
    return await _page(view, app_id, chosen, sent, answer=answer)


@router.post("/apps/{publisher}/{name}/actions/{action}")
async def begin(view: Shown, publisher: str, name: str, action: str) -> Response:
    """Run an action, and go to its page."""
    known = view.require(TokenScope.RUN)
    form = await view.form(MAX_FILES)
    host, app_id = host_of(view.request), f"{publisher}/{name}"
    chosen = action_named(host.actions.actions_of(known.principal.workspace, app_id), action)
    sent = sent_of(form.multi_items())
    if "more" in form:
        return await _page(view, app_id, chosen, sent)
    submitted = await asyncio.to_thread(read, shape_of(chosen.input_schema), sent)
    if not submitted.faults:
        await _check(chosen, submitted)
    if submitted.faults:
        return await _page(view, app_id, chosen, sent, faults=submitted.faults, status=422)
    try:
        id_ = await _begun(view, app_id, chosen.name, submitted.value, str(form.get("once", "")))
    except LlmasosError as error:
        return await _page(view, app_id, chosen, sent, error=error, status=error.status)
    return redirect(f"/apps/{app_id}?" + urlencode({"action": chosen.name, "run": id_}))


async def _check(action: Action, submitted: Submitted) -> None:
    try:
        await checked(partial(_checked, action, submitted.value))
    except InputRejected as error:
        submitted.refuse(error.faults)
        if not submitted.faults:
            submitted.faults[submitted.names[""]] = error.message


def _checked(action: Action, value: Any, steps: int) -> None:
    check_input(action, value, steps)


async def _begun(view: View, app_id: str, action: str, value: Any, once: str) -> str:
    """Begin a run that goes on by itself, once for each form: sent twice, it is the same run.

    Raises:
        LlmasosError: Why it could not begin.
    """
    host, principal = host_of(view.request), view.principal
    key = hashlib.sha256(json.dumps([once, action, value]).encode()).hexdigest()
    keyed = KeyedRequest.of(principal, f"page-{key}", app_id, action, value)
    claim = await host.invocations.keys.claim(keyed)
    if not claim.is_new:
        return claim.invocation_id
    followed = FollowedInvocation[Event, InvocationResult](
        lambda emit, on_start: host.actions.run(
            principal, app_id, action, value, emit, on_start=on_start, id_=claim.invocation_id
        ),
        streamed=False,
    )

    def release() -> None:
        if not followed.has_begun:
            host.invocations.keys.release(keyed, claim)

    followed.when_ended(release)
    followed.detach()
    await followed.begun()
    return claim.invocation_id


async def _page(
    view: View,
    app_id: str,
    action: Action,
    sent: Sent,
    *,
    answer: RunAnswer | None = None,
    faults: Mapping[str, Message] | None = None,
    error: LlmasosError | None = None,
    status: int = 200,
) -> Response:
    principal = view.principal
    host = host_of(view.request)
    actions = host.actions.actions_of(principal.workspace, app_id)
    return view.render(
        "run.html.jinja",
        status,
        app=installed_card(view, app_id),
        action=action,
        actions=[(each.name, each.title(view.locale)) for each in actions.values()],
        form=form_of(action.input_schema, view.locale, sent, faults),
        answer=answer,
        error=error,
        is_denied=isinstance(error, Denied),
        once=new_id(),
    )


def installed_card(view: View, app_id: str) -> AppCard:
    """An installed app in the reader's language; by its id alone if it was removed since."""
    with host_of(view.request).database.read() as session:
        found = repository.current(session, view.principal.workspace, app_id)
        if found is None:
            return AppCard(app_id, app_id, "", None)
        return card(Manifest.model_validate(found[1].manifest), view.locale)

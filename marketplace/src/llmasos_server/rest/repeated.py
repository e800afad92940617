"""A request that came before under its Idempotency-Key: it is answered with the invocation that it began then."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from llmasos.errors import Unavailable
from llmasos.invocations.content import InvocationContent
from llmasos.invocations.journal import EventJournal
from llmasos.invocations.result import InvocationResult
from llmasos_server.rest import sse
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.following import GONE
from llmasos_server.rest.identity import Caller, until_revoked
from llmasos_server.rest.problems import OutputNotKept, respond
from llmasos_server.rest.schemas import InvocationStatus, RunView


async def repeated(request: Request, caller: Caller, id_: str, *, streamed: bool, later: bool) -> Response:
    """Answer with an invocation of the caller's that began before, as the request wants it."""
    invocations = host_of(request).invocations
    row = await invocations.find(id_, caller.principal)
    if later:
        return accepted(InvocationStatus.model_validate({"id": id_, "status": row.status}))
    journal = await invocations.events(row)
    if streamed:
        until = partial(until_revoked, request, caller)
        stream = sse.JournalStream(id_, journal, 0, caller.principal.locale, until)
        stream.headers["location"] = _address(id_)
        return stream
    ended = asyncio.ensure_future(journal.ended())
    gone = asyncio.ensure_future(sse.disconnect(request.receive))
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
        return _answer(request, id_, journal) if ended.done() else GONE
    finally:
        ended.cancel()
        gone.cancel()


def accepted(status: InvocationStatus) -> Response:
    """202: it runs, or ran, and its address."""
    headers = {"location": _address(status.id), "preference-applied": "respond-async"}
    return JSONResponse(status.model_dump(mode="json"), status_code=202, headers=headers)


def _answer(request: Request, id_: str, journal: EventJournal) -> Response:
    ending = journal.ending
    error = Unavailable() if ending is None else ending.error
    if error is not None:
        return respond(error, request, invocation=id_)
    if ending is None or ending.output_json is None:
        return respond(OutputNotKept(), request, invocation=id_)
    notices = tuple(event.text for event in journal.after(0, journal.last) if event.kind == "notice")
    output = InvocationContent(output_json=ending.output_json).output
    view = RunView.of(InvocationResult(id_, output, ending.usage, notices))
    return JSONResponse(view.model_dump(mode="json", exclude_unset=True), headers={"location": _address(id_)})


def _address(id_: str) -> str:
    return f"{PREFIX}/invocations/{id_}"

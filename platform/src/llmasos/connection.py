"""Connections to a host: in this process, or to a server by HTTP. Both are async; `client.py` is the sync interface."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from llmasos.errors import (
    Conflict,
    Denied,
    Invalid,
    LlmasosError,
    NotFound,
    QuotaExceeded,
    TimedOut,
    Unauthenticated,
    Unavailable,
    error_with_code,
)
from llmasos.i18n import _, environment_locale
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.invocation import Event, EventSink, InvocationUsage, Json, Principal, discard
from llmasos.settings import Settings

if TYPE_CHECKING:
    from llmasos.gateway.embedded.local import OnFetch
    from llmasos.host import Host

_BY_STATUS: Final[Mapping[int, type[LlmasosError]]] = {
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    429: QuotaExceeded,
    503: Unavailable,
    504: TimedOut,
}


class Connection(Protocol):
    """A program's connection to a host."""

    async def run(self, app_id: str, action: str, value: Json, emit: EventSink = discard) -> InvocationResult:
        """Run an action of an installed app to its end.

        Raises:
            LlmasosError: How it failed.
        """
        ...

    async def input_schema(self, app_id: str, action: str) -> Mapping[str, Any]:
        """The JSON Schema of an action's input, and `x-streaming`: whether it streams.

        Raises:
            NotFound: There is no such app, or no such action.
        """
        ...

    async def generate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a model's whole answer, a chat completion, as the user, without an app."""
        ...

    def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Stream a model's answer as chat-completion chunks. Read it in one task, and close it there."""
        ...

    async def embed(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a vector for each text of `request["input"]`."""
        ...


class LocalConnection:
    """A host in this process."""

    def __init__(self, host: Host, principal: Principal) -> None:
        """Act for `principal`."""
        self._host = host
        self._principal = principal

    async def run(self, app_id: str, action: str, value: Json, emit: EventSink = discard) -> InvocationResult:
        """Run an action; see `Connection.run`."""
        return await self._host.actions.run(self._principal, app_id, action, value, emit)

    async def input_schema(self, app_id: str, action: str) -> Mapping[str, Any]:
        """The schema of an action's input; see `Connection.input_schema`."""
        found = self._host.actions.action(self._principal.workspace, app_id, action)
        return {**found.input_schema, "x-streaming": found.streaming}

    async def generate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A whole answer; see `Connection.generate`."""
        from llmasos.capabilities.model import generation  # noqa: PLC0415 - a server's client spares it

        return await self._host.programs.whole(self._principal, generation(request), request)

    async def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """An answer in chunks; see `Connection.stream`."""
        from llmasos.capabilities.model import streamed_generation  # noqa: PLC0415

        parts = self._host.programs.streamed(self._principal, streamed_generation(request), request)
        async with aclosing(parts):
            async for part in parts:
                yield part

    async def embed(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Vectors; see `Connection.embed`."""
        from llmasos.capabilities.model import embedding  # noqa: PLC0415

        return await self._host.programs.whole(self._principal, embedding(request), request)


class RemoteConnection:
    """A server's host."""

    def __init__(self, url: str, token: str) -> None:
        """Connect to the server at `url` with one of its tokens."""
        import httpx  # noqa: PLC0415 - only a server's client needs it

        self._url = url
        # An invocation may take as long as its app's wall time; the server sends heartbeats during it.
        timeout = httpx.Timeout(60.0, connect=5.0)
        headers = headers_of(token)
        try:
            self._client = httpx.AsyncClient(
                base_url=url.rstrip("/"), headers=headers, timeout=timeout, trust_env=False
            )
        except httpx.InvalidURL as error:
            raise unreachable(url, error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def run(self, app_id: str, action: str, value: Json, emit: EventSink = discard) -> InvocationResult:
        """Run an action; see `Connection.run`. It is streamed, so that a slow run differs from a dead server."""
        import httpx  # noqa: PLC0415
        from httpx_sse import EventSource  # noqa: PLC0415

        path = f"/api/v1/apps/{app_id}/actions/{action}"
        headers = {"accept": "text/event-stream"}
        usage, notices = InvocationUsage(), list[str]()
        try:
            async with self._client.stream("POST", path, json=value, headers=headers) as answer:
                if answer.status_code != 200:
                    raise error_of(await answer.aread(), answer.status_code)
                async for event in EventSource(answer).aiter_sse():
                    if not event.data:  # what follows a heartbeat
                        continue
                    content = json.loads(event.data)
                    match event.event:
                        case "chunk":
                            await emit(Event("chunk", content["text"]))
                        case "progress":
                            await emit(Event("progress", content["message"], content["fraction"]))
                        case "notice":
                            notices.append(content["message"])
                            await emit(Event("notice", content["message"]))
                        case "usage":
                            usage = InvocationUsage(**content)
                        case "end":
                            return InvocationResult(content["id"], content["output"], usage, tuple(notices))
                        case _:
                            raise error_of(json.dumps(content).encode(), 500)
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from error
        raise Unavailable(
            _("The server {url} ended the stream before the run did; run it again.", url=self._url),
        )

    async def input_schema(self, app_id: str, action: str) -> Mapping[str, Any]:
        """The schema of an action's input; see `Connection.input_schema`."""
        import httpx  # noqa: PLC0415

        try:
            answer = await self._client.get(f"/api/v1/apps/{app_id}/actions/{action}")
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from error
        if answer.status_code != 200:
            raise error_of(answer.content, answer.status_code)
        described = answer.json()
        return {**described["input_schema"], "x-streaming": described["streaming"]}

    async def generate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A whole answer; see `Connection.generate`."""
        return await self._post("/v1/chat/completions", request)

    async def embed(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Vectors; see `Connection.embed`."""
        return await self._post("/v1/embeddings", request)

    async def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """An answer in chunks; see `Connection.stream`."""
        import httpx  # noqa: PLC0415
        from httpx_sse import EventSource  # noqa: PLC0415

        value = {**request, "stream": True}
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=value) as answer:
                if answer.status_code != 200:
                    raise error_of(await answer.aread(), answer.status_code)
                async for event in EventSource(answer).aiter_sse():
                    if event.data == "[DONE]":
                        return
                    content: dict[str, Any] = json.loads(event.data) if event.data else {}
                    if "error" in content:
                        raise error_of(json.dumps(content["error"]).encode(), 500)
                    if content:
                        yield content
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from error
        raise Unavailable(_("The server {url} ended the stream before the answer did; ask again.", url=self._url))

    async def _post(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        import httpx  # noqa: PLC0415

        try:
            # A model may reason silently for minutes.
            answer = await self._client.post(path, json=dict(request), timeout=httpx.Timeout(600.0, connect=5.0))
        except httpx.HTTPError as error:
            raise unreachable(self._url, error) from error
        if answer.status_code != 200:
            raise error_of(answer.content, answer.status_code)
        return answer.json()  # type: ignore[no-any-return]


def headers_of(token: str) -> dict[str, str]:
    """What every request to a server carries.

    Raises:
        Invalid: The token has characters that no token has, such as typographic quotes.
    """
    if not token.isascii() or not token.isprintable():
        raise Invalid(_("LLMASOS_TOKEN has characters that no token has: copy the token again."))
    return {"accept-language": environment_locale(), **({"authorization": f"Bearer {token}"} if token else {})}


def unreachable(url: str, error: Exception) -> Unavailable:
    """The error for a server that cannot be reached."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return Unavailable(
        _(
            "The server {url} does not respond ({reason}): start it with `llmasos serve`, or unset LLMASOS_URL.",
            url=url,
            reason=reason,
        ),
    )


@asynccontextmanager
async def connected(
    settings: Settings, principal: Principal | None = None, on_fetch: OnFetch | None = None
) -> AsyncGenerator[Connection]:
    """Connect to the host in the settings: the server at `settings.url`, else one in this process.

    Args:
        settings: The server or the home.
        principal: Whom a host in this process acts for; a server takes it from the token.
        on_fetch: Called with (model, fetched bytes, total bytes) while a host in this process fetches weights.
    """
    if settings.url:
        remote = RemoteConnection(settings.url, settings.token)
        try:
            yield remote
        finally:
            await remote.close()
    else:
        from llmasos.host import Host, HostParts, open_gateway  # noqa: PLC0415 - a second that a server's client spares

        parts = HostParts(
            gateway=lambda settings, database, plugins: open_gateway(settings, database, plugins, on_fetch)
        )
        async with Host.open(settings, parts) as host:
            yield LocalConnection(host, principal or Principal())


def error_of(body: bytes, status: int) -> LlmasosError:
    """Convert a problem document into its error."""
    try:
        problem: dict[str, Any] = json.loads(body)
        code, detail = str(problem["code"]), str(problem["detail"])
        status = int(problem.get("status", status))
    except (ValueError, KeyError, TypeError):
        return Unavailable(
            _("The server returned {status} without a reason; is it an LLMasOS server?", status=status),
        )
    known = error_with_code(code, detail)
    if known is not None:
        return known
    return _BY_STATUS.get(status, Invalid if 400 <= status < 500 else Unavailable)(detail)

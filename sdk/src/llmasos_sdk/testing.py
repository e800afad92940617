"""Fakes for an app's own tests: they behave as the host does, limits included, and need none.

    def test_it_translates() -> None:
        ctx = FakeContext(model=ScriptedModel("Guten Tag"))
        assert translate(ctx, "Good day", "de") == "Guten Tag"
        assert "de" in ctx.scripted.requests[0]["messages"][0]["content"]

`FakeContext` is a `Context` over a `FakeHost`, which records what the action sent: `chunks`, `progress`, `logs`.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from llmasos_sdk.app import App
from llmasos_sdk.context import Context
from llmasos_sdk.encoding import encode
from llmasos_sdk.errors import AppError, Denied, Invalid, NotFound, Unavailable
from llmasos_sdk.fakes.model import Answer, ScriptedModel
from llmasos_sdk.fakes.requests import check_http
from llmasos_sdk.fakes.sandbox import SOCKET_VARIABLE, call_in_sandbox
from llmasos_sdk.fakes.storage import MemoryStorage
from llmasos_sdk.host import BASELINE_CAPABILITIES, JsonValue, carried
from llmasos_sdk.results import Document

__all__ = ["Answer", "FakeContext", "FakeHost", "MemoryStorage", "ScriptedModel", "call"]

Responder = Callable[[dict[str, Any]], Mapping[str, Any]]
AppCallee = Callable[..., object]
# A line under a progress bar.
MAX_PROGRESS_MESSAGE = 500


class FakeHost:
    """The port over fakes. A capability exists exactly if its fake does.

    Args:
        model: Serves `ctx.model`.
        storage: Serves `ctx.storage`.
        config: The installer's choices.
        locale: `en` or `zh`.
        http: Answers `ctx.http`: gets {"method", "url", "headers", "body"}, returns {"status", "headers"?, "body"?},
            the body text or bytes.
        secrets: The names of the secrets that are set.
        apps: Serves `ctx.apps`: functions by app and action, `{"acme/glossary": {"look_up": function}}`.
        declined: Optional capabilities that were declined: `ctx.has` returns False, and they are absent.
    """

    def __init__(
        self,
        *,
        model: ScriptedModel | None = None,
        storage: MemoryStorage | None = None,
        config: Mapping[str, JsonValue] | None = None,
        locale: str = "en",
        http: Responder | None = None,
        secrets: list[str] | None = None,
        apps: Mapping[str, Mapping[str, AppCallee]] | None = None,
        declined: Collection[str] = (),
    ) -> None:
        self.model = model
        self.storage = storage
        self.config = dict(config or {})
        self.locale = locale
        self.chunks: list[str] = []
        self.progress: list[tuple[float, str]] = []
        self.logs: list[tuple[str, str]] = []
        self.http_requests: list[dict[str, Any]] = []
        self._http = http
        self._secrets = secrets
        self._apps = apps
        fakes = {"model": model, "storage": storage, "http": http, "secrets": secrets, "apps": apps}
        self._declined = frozenset(declined)
        given = {name for name, fake in fakes.items() if fake is not None}
        self._capabilities = BASELINE_CAPABILITIES | given | self._declined

    @property
    def capabilities(self) -> frozenset[str]:
        """The baseline ones, and those that have a fake."""
        return self._capabilities

    def call(self, capability: str, function: str, *arguments: JsonValue) -> JsonValue:  # noqa: PLR0911 (a table)
        """Call a fake by the WIT names, as an app calls the host."""
        if capability not in self._capabilities:
            raise Denied(f"{capability} is not declared")
        arguments = tuple(carried(capability, function, arguments))
        if capability in self._declined:
            raise Denied(f"{capability} was declined")
        match capability, function:
            case "output", "chunk":
                self.chunks.append(str(arguments[0]))
            case "output", "progress":
                self.progress.append((float(cast("float", arguments[0])), str(arguments[1])[:MAX_PROGRESS_MESSAGE]))
            case "log", "write":
                self.logs.append((str(arguments[0]), str(arguments[1])))
            case "config", "read":
                granted = sorted(self._capabilities - self._declined)
                return json.dumps(
                    {"values": self.config, "locale": self.locale, "granted": granted}, ensure_ascii=False
                )
            case "model", _ if self.model is not None:
                return self.model.call(function, *arguments)
            case "storage", _ if self.storage is not None:
                return self.storage.call(function, *arguments)
            case "http", "request":
                return self._request(str(arguments[0]))
            case "secrets", "names":
                return [*(self._secrets or [])]
            case "apps", "call":
                return self._call_app(*(str(argument) for argument in arguments))
            case _:
                raise NotFound(f"{capability} has no function {function}")
        return None

    def _request(self, text: str) -> JsonValue:
        request = check_http(text)
        self.http_requests.append(request)
        responder = self._http or _no_answer
        answer: Document = {"headers": {}, "body": "", "base64": False, "url": request["url"], **responder(request)}
        if isinstance(answer["body"], bytes):
            answer |= _body(answer["body"])
        return json.dumps(answer)

    def _call_app(self, app: str, action: str, text: str) -> JsonValue:
        if self._apps is None or app not in self._apps:
            raise Denied(f"llmapp.toml does not name {app} in the permission apps")
        if action not in self._apps[app]:
            raise NotFound(f"{app} has no action {action}")
        try:
            return json.dumps(encode(self._apps[app][action](**json.loads(text))), ensure_ascii=False)
        except AppError:
            raise
        except Exception as error:  # as the host reports an app that failed
            raise Invalid(f"the app failed: {type(error).__name__}: {error}") from error


def _body(content: bytes) -> Document:
    """The body of a response as the host returns it: text if it is text."""
    try:
        return {"body": content.decode()}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(content).decode(), "base64": True}


def _no_answer(request: dict[str, Any]) -> Mapping[str, Any]:
    raise Unavailable(f"no fake answers {request['url']}")


class FakeContext(Context):
    """A context for host tests; its arguments are those of `FakeHost`.

    A capability without a fake is absent, as one without a permission is.
    """

    def __init__(
        self,
        *,
        model: ScriptedModel | None = None,
        storage: MemoryStorage | None = None,
        config: Mapping[str, JsonValue] | None = None,
        locale: str = "en",
        http: Responder | None = None,
        secrets: list[str] | None = None,
        apps: Mapping[str, Mapping[str, AppCallee]] | None = None,
        declined: Collection[str] = (),
    ) -> None:
        self.fake = FakeHost(
            model=model,
            storage=storage,
            config=config,
            locale=locale,
            http=http,
            secrets=secrets,
            apps=apps,
            declined=declined,
        )
        super().__init__(self.fake)

    @property
    def scripted(self) -> ScriptedModel:
        """The model behind `ctx.model`: its script, and the requests that it received."""
        if self.fake.model is None:
            raise Unavailable("this FakeContext has no model; give it one: FakeContext(model=ScriptedModel(...))")
        return self.fake.model

    @property
    def memory(self) -> MemoryStorage:
        """The storage behind `ctx.storage`."""
        if self.fake.storage is None:
            raise Unavailable("this FakeContext has no storage; give it one: FakeContext(storage=MemoryStorage())")
        return self.fake.storage


def call(app: App, action: str, ctx: Context, /, **inputs: object) -> Any:
    """Run an action as the host does: JSON in, JSON out, streamed pieces through the host.

    Under `llmasos test --sandbox` it runs in the sandbox, and only the fakes behind `ctx` run in the test. A hook runs
    by its reserved name: `call(app, "@upgrade", ctx, from_version="1.0.0")`.

    Raises:
        AppError: The error that the host would return to its caller.
    """
    input_json = json.dumps(encode(inputs), ensure_ascii=False)
    sandbox = os.environ.get(SOCKET_VARIABLE)
    if sandbox is None:
        return json.loads(app.call(action, input_json, ctx))
    app.check_input(action, input_json)
    return json.loads(call_in_sandbox(sandbox, action, input_json, ctx.host))

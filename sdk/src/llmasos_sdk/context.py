"""The context of an action: the capabilities that the manifest declares, and nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, cast

from llmasos_sdk.encoding import encode
from llmasos_sdk.errors import CapabilityNotDeclared, PermissionDeclined
from llmasos_sdk.host import Host
from llmasos_sdk.messages import message as _
from llmasos_sdk.model import ModelClient
from llmasos_sdk.results import Document, Response, bytes_from
from llmasos_sdk.storage import StorageClient

# The minimal lines of each capability in llmapp.toml, which the error for an undeclared one prints.
MANIFEST_LINES: Mapping[str, str] = MappingProxyType(
    {
        "model": 'tiers = ["fast"]',
        "storage": "max_bytes = 1048576",
        "http": 'hosts = ["https://api.example.com"]',
        "secrets": 'secrets = [{ name = "api_key", host = "https://api.example.com", header = "authorization" }]',
        "apps": 'apps = ["publisher/name"]',
    }
)


def permission_lines(capability: str) -> str:
    """The lines of `llmapp.toml` that declare a capability."""
    return (
        f'[[permissions]]\ncapability = "{capability}"\n{MANIFEST_LINES[capability]}\n'
        'reason.en = "Say here what the app needs it for."'
    )


class OutputClient:
    """`ctx.output`: what the caller sees while the action runs. To send text, `yield` it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def progress(self, fraction: float, message: str = "") -> None:
        """Show the progress, from 0 to 1, with a line of text."""
        self._host.call("output", "progress", float(min(1.0, max(0.0, fraction))), str(message))


class LogClient:
    """`ctx.log`: lines kept with the invocation, for the app's author and the operator."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def debug(self, message: str) -> None:
        """Log a line for debugging."""
        self._host.call("log", "write", "debug", str(message))

    def info(self, message: str) -> None:
        """Log a line of general interest."""
        self._host.call("log", "write", "info", str(message))

    def warning(self, message: str) -> None:
        """Log a problem that did not stop the action."""
        self._host.call("log", "write", "warning", str(message))

    def error(self, message: str) -> None:
        """Log a failure."""
        self._host.call("log", "write", "error", str(message))


class HttpClient:
    """`ctx.http`: requests to the servers that the manifest names."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        json_body: object = None,
    ) -> Response:
        """Send one request. The host inserts secrets, never the app.

        Args:
            method: A method that the grant allows.
            url: The full URL, including the query.
            headers: Headers by name.
            body: Text or bytes.
            json_body: A value to send as JSON instead of `body`.

        Raises:
            Denied: The grant does not allow that server or method.
            Unavailable: The server did not respond.
        """
        sent = dict(headers or {})
        if json_body is not None:
            body = json.dumps(encode(json_body), ensure_ascii=False, allow_nan=False)
            sent = {"content-type": "application/json", **sent}
        request: Document = {"method": method, "url": url, "headers": sent}
        if isinstance(body, bytes):
            request |= {"body": base64.b64encode(body).decode(), "base64": True}
        elif body is not None:
            request["body"] = body
        answer = cast(
            "Document", json.loads(str(self._host.call("http", "request", json.dumps(request, ensure_ascii=False))))
        )
        answered = cast("dict[str, str]", answer.get("headers") or {})
        return Response(
            status=int(answer["status"]),
            url=str(answer.get("url") or url),
            content=bytes_from(answer, "body"),
            headers={name.lower(): value for name, value in answered.items()},
        )

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> Response:
        """GET one address; see `request`."""
        return self.request("GET", url, headers=headers)

    def post(self, url: str, *, headers: Mapping[str, str] | None = None, json_body: object = None) -> Response:
        """POST a value as JSON; see `request`."""
        return self.request("POST", url, headers=headers, json_body=json_body)


class SecretsClient:
    """`ctx.secrets`: which secrets are set. The host inserts their values; only a server could echo one."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def names(self) -> list[str]:
        """The names of the secrets that the user has set."""
        return cast("list[str]", self._host.call("secrets", "names"))


class AppsClient:
    """`ctx.apps`: actions of the other apps that the manifest names."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def call(self, app: str, action: str, /, **inputs: object) -> Any:
        """Run another app's action, and return its output. It runs with what both apps may do.

        Raises:
            Denied: The grant does not include that app.
            NotFound: It is not installed, or has no such action.
        """
        sent = json.dumps(encode(inputs), ensure_ascii=False, allow_nan=False)
        return json.loads(str(self._host.call("apps", "call", app, action, sent)))


class Context:
    """One invocation, as seen by its action.

    A capability that the manifest does not declare is absent: `hasattr(ctx, "http")` is false, and using it raises
    `CapabilityNotDeclared` with the lines to add. One whose optional permission the user declined is absent as well,
    and using it raises `PermissionDeclined`.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.output = OutputClient(host)
        self.log = LogClient(host)

    @cached_property
    def model(self) -> ModelClient:
        """Language models."""
        return ModelClient(self._host_for("model"))

    @cached_property
    def storage(self) -> StorageClient:
        """Values stored for the app, separately for each user."""
        return StorageClient(self._host_for("storage"))

    @cached_property
    def http(self) -> HttpClient:
        """Requests to the servers that the manifest names."""
        return HttpClient(self._host_for("http"))

    @cached_property
    def secrets(self) -> SecretsClient:
        """Which secrets are set."""
        return SecretsClient(self._host_for("secrets"))

    @cached_property
    def apps(self) -> AppsClient:
        """Actions of other apps."""
        return AppsClient(self._host_for("apps"))

    @property
    def host(self) -> Host:
        """What carries this context's calls."""
        return self._host

    @cached_property
    def _settings(self) -> Document:
        return cast("Document", json.loads(str(self._host.call("config", "read"))))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The installer's choices, by the names in the manifest's `[config]`, with defaults filled in."""
        return MappingProxyType(cast("dict[str, Any]", self._settings.get("values") or {}))

    def has(self, capability: str) -> bool:
        """Whether the action may use a capability, such as `model`: declared, and granted by this installation.

        A permission with `optional = true` may have been declined, or revoked since: ask before using it, and do
        without it.
        """
        granted = cast("list[str] | None", self._settings.get("granted"))
        return capability in self._host.capabilities and (granted is None or capability in granted)

    @property
    def locale(self) -> str:
        """The language of the user who runs the action: `en` or `zh`."""
        return str(self._settings.get("locale") or "en")

    def _host_for(self, capability: str) -> Host:
        """The host, for the client of a capability that is there.

        Raises:
            CapabilityNotDeclared: The manifest does not declare it.
            PermissionDeclined: The installation does not grant it.
        """
        if capability not in self._host.capabilities:
            raise CapabilityNotDeclared(
                _(
                    "ctx.{name} is not there: llmapp.toml does not declare it. Add:\n\n{lines}\n",
                    name=capability,
                    lines=permission_lines(capability),
                )
            )
        if not self.has(capability):
            raise PermissionDeclined(
                _(
                    "The app may not use {name}: its user declined that, or took it back. "
                    'The app can ask ctx.has("{name}") first and do without; to allow it, install the app again.',
                    name=capability,
                )
            )
        return self._host

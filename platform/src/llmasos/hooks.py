"""The hooks by which an operator's plugin extends the host.

A plugin is a module or an object with functions marked `@hookimpl`, registered at the entry-point group
`llmasos.plugins` of a package in the host's own environment. It is trusted: it runs in the host process.
An implementation declares the arguments of its hook that it uses, by name. It is a plain function: wrappers, generators
and coroutines are refused when the plugin is loaded.

What happens if an implementation raises, even `SystemExit`, or returns a value that its hook does not allow:

- **guards** (`before_model_call`, `after_model_call`, `check_release`) fail closed: the call or the release is refused,
  and the error names the plugin. To refuse on purpose, a guard raises `Denied` or `Invalid` with a message for the
  user.
- **choices** (`select_model`, `tune_parameters`, `cache_key`) and **registrations** (`register_…`) are skipped: the
  error is logged with the plugin's name, and the next implementation, finally the built-in one, is called.
- **observers** (`on_usage`, `on_audit`) are skipped: the error is logged.

The last registered is called first; the host's own built-ins are registered first, so they are called last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pluggy

from llmasos.bundles.manifest import Manifest
from llmasos.gateway.guard import TextFilter
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.routing import Choice, Reach
from llmasos.gateway.steps import ModelCall
from llmasos.kernel.capability import Capability
from llmasos.kernel.observation import AuditRecord, UsageRecord
from llmasos.runtimes.runtime import Runtime, RuntimeContext, RuntimeKind

__all__ = [
    "AuditRecord",
    "Choice",
    "Hooks",
    "ModelCall",
    "ReleaseFinding",
    "Runtime",
    "RuntimeContext",
    "RuntimeKind",
    "TextFilter",
    "UsageRecord",
    "hookimpl",
    "hookspec",
]

PROJECT: Final = "llmasos"
ENTRY_POINT_GROUP: Final = "llmasos.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class ReleaseFinding:
    """A check's finding on a release. One that `blocks` prevents its publication."""

    message: str
    blocks: bool = False


class Hooks:
    """Every hook. An implementation returns None if it has no opinion."""

    @hookspec
    def register_models(self) -> list[ModelEntry]:
        """Return models besides those of the commands and `config.toml`; called once, when a model is first needed."""
        return []

    @hookspec
    def select_model(
        self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str
    ) -> Choice | None:
        """Choose the model to call, among `models` within `reach`; the first plugin that returns one decides.

        Args:
            request: The request; `request.model` is None, or the name that the caller requires.
            models: Every model by name.
            reach: What the caller may use. A choice outside of it or not in `models` is skipped.
            locale: `en` or `zh`, for notices.
        """

    @hookspec
    def tune_parameters(self, request: GenerateRequest, model: ModelEntry) -> GenerateRequest | None:
        """Set parameters that the caller did not set, such as the temperature for a task."""

    @hookspec
    def before_model_call(self, call: ModelCall) -> GenerateRequest | None:
        """Guard: rewrite the request, or raise `Denied` to refuse it. Runs before anything is reserved or sent."""

    @hookspec
    def after_model_call(self, call: ModelCall) -> TextFilter | None:
        """Guard: return a filter for the answer's text; called for each model call."""

    @hookspec
    def cache_key(self, call: ModelCall) -> str | None:
        """Return a key under which an equal call may be served from memory; the host adds workspace, app and model."""

    @hookspec
    def on_usage(self, record: UsageRecord) -> None:
        """Observer: a capability call was settled."""

    @hookspec
    def on_audit(self, record: AuditRecord) -> None:
        """Observer: a line was added to the audit log."""

    @hookspec
    def check_release(self, manifest: Manifest, files: Mapping[str, bytes]) -> list[ReleaseFinding]:
        """Guard: check a release before it enters the catalog."""
        return []

    @hookspec
    def register_capability(self) -> Capability | None:
        """Return a capability of the plugin's own, with a unique name."""

    @hookspec
    def register_runtime(self) -> RuntimeKind | None:
        """Return a runtime of the plugin's own, for apps with its `runtime.kind`, which begins with `x-`.

        Its apps are finished components or wheels. The host prepares and calls them as with its own
        runtimes, and the kernel checks every call that they make to the host; confining their code is the plugin's
        responsibility. An app whose kind is not registered is refused when it is built, published or installed.
        """

    @hookspec
    def register_commands(self) -> Mapping[str, str]:
        """Return commands to add to `llmasos`: {name: "module:function"}; Typer calls the function."""
        return {}

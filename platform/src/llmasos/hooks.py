"""The hooks by which an operator's plugin extends the host.

A plugin is a module or an object with functions marked `@hookimpl`, registered at the entry-point group
`llmasos.plugins` of a package in the host's own environment. It is trusted: it runs in the host process.
An implementation takes those arguments of its hook that it wants, by name. It is a plain function: wrappers, generators
and coroutines are refused when the plugin is loaded.

What happens when an implementation raises, be it `SystemExit`, or returns a value that its hook does not allow:

- **guards** (`before_model_call`, `after_model_call`, `check_release`) fail closed: the call or the release is refused,
  and the error names the plugin. A guard that means to refuse raises `Denied` or `Invalid` with a message for the user.
- **choices** (`select_model`, `tune_parameters`, `cache_key`) and **registrations** (`register_…`) are passed over: the
  error is logged with the plugin's name, and the next implementation, at last the built-in, is asked.
- **observers** (`on_usage`, `on_audit`) are logged and change nothing.

The last registered is asked first; the host's own built-ins are registered first, so they have the last word.
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
    """What a check found in a release. One that `blocks` keeps it from being published."""

    message: str
    blocks: bool = False


class Hooks:
    """Every hook. An implementation returns None if it has no opinion."""

    @hookspec
    def register_models(self) -> list[ModelEntry]:
        """Models to offer besides those of the operator's commands and `config.toml`; asked once, at start."""
        return []

    @hookspec
    def select_model(
        self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str
    ) -> Choice | None:
        """Choose the model that answers, among `models` within `reach`; the first plugin that returns one decides.

        Args:
            request: What is asked; `request.model` is None, or the name that the caller insists on.
            models: Every model by name.
            reach: What the caller may use. A choice outside it, or of a model that is not in `models`, is passed over.
            locale: `en` or `zh`, for notices.
        """

    @hookspec
    def tune_parameters(self, request: GenerateRequest, model: ModelEntry) -> GenerateRequest | None:
        """Set parameters that the caller left open, such as the temperature for a task."""

    @hookspec
    def before_model_call(self, call: ModelCall) -> GenerateRequest | None:
        """Guard: rewrite the request, or raise `Denied` to refuse it. Runs before anything is reserved or sent."""

    @hookspec
    def after_model_call(self, call: ModelCall) -> TextFilter | None:
        """Guard: a filter for the answer's text, made anew for each call."""

    @hookspec
    def cache_key(self, call: ModelCall) -> str | None:
        """A key under which an equal call may be answered from memory; the host adds workspace, app and model."""

    @hookspec
    def on_usage(self, record: UsageRecord) -> None:
        """Observer: a capability call was settled."""

    @hookspec
    def on_audit(self, record: AuditRecord) -> None:
        """Observer: a line was added to the audit log."""

    @hookspec
    def check_release(self, manifest: Manifest, files: Mapping[str, bytes]) -> list[ReleaseFinding]:
        """Guard: look at a release before it enters the catalog."""
        return []

    @hookspec
    def register_capability(self) -> Capability | None:
        """A capability of the plugin's own, under a name that no other has."""

    @hookspec
    def register_runtime(self) -> RuntimeKind | None:
        """A runtime of the plugin's own, for apps whose `runtime.kind` it names; the name begins with `x-`.

        Its apps are finished components or wheels. The host prepares and calls them through it as through its own
        runtimes, and the kernel holds every call that they make to the host; what confines their code is the plugin's
        to provide. An app of a kind that nothing registers is refused when it is built, published or installed.
        """

    @hookspec
    def register_commands(self) -> Mapping[str, str]:
        """Commands to add to `llmasos`: {name: "module:function"}; the function is one that Typer takes."""
        return {}

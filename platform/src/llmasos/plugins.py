"""Loads operators' plugins, and calls their hooks through pluggy so that none can harm the host by failing.

Each plugin has a plugin manager of its own, so that failures are isolated; the last registered is called first.
Two policies surround a call. A guard fails closed: what it guards is refused. Any other hook's failure is logged
with the plugin's name, and the next plugin is called. A failure is any exception, `SystemExit` too, or a result of
a type that the hook does not allow (`plugin_results`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from types import MappingProxyType
from typing import Final, Literal, TypeVar

import pluggy

from llmasos import plugin_results as results
from llmasos.bundles.manifest import Manifest
from llmasos.errors import Invalid, LlmasosError, Unavailable
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.routing import Choice, Reach, choose
from llmasos.hooks import (
    ENTRY_POINT_GROUP,
    PROJECT,
    AuditRecord,
    Hooks,
    ModelCall,
    ReleaseFinding,
    TextFilter,
    UsageRecord,
    hookimpl,
)
from llmasos.i18n import _
from llmasos.kernel.capability import Capability
from llmasos.plugin_marks import implemented_hooks
from llmasos.plugin_results import Check
from llmasos.runtimes.kinds import COMPONENTS, NATIVE
from llmasos.runtimes.runtime import Runtime, RuntimeContext, RuntimeKind

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Router:
    """The built-in choice of a model, by simple rules."""

    @hookimpl
    def select_model(
        self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str
    ) -> Choice:
        """The named model, else the first of the tier."""
        return choose(request, models, reach, locale)


@dataclass(frozen=True, slots=True)
class OwnRuntime:
    """One of the host's own runtimes."""

    kind: RuntimeKind

    @hookimpl
    def register_runtime(self) -> RuntimeKind:
        """The runtime."""
        return self.kind


BUILT_IN: Final[Mapping[str, object]] = {
    "llmasos-router": Router(),
    "llmasos-components": OwnRuntime(COMPONENTS),
    "llmasos-native": OwnRuntime(NATIVE),
}


@dataclass(frozen=True, slots=True)
class PluginState:
    """A plugin for `llmasos plugins list`. `problem` says why it was refused."""

    name: str
    version: str
    source: Literal["built-in", "installed"]
    hooks: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A plugin, alone in a plugin manager."""

    name: str
    manager: pluggy.PluginManager
    hooks: tuple[str, ...]

    def ask(self, hook: str, check: Check[T], arguments: Mapping[str, object]) -> list[T]:
        """Call its hook, and return the checked results; none if it has no opinion.

        Raises:
            LlmasosError: As the plugin raised it.
            PluginFailed: It raised anything else, or returned a value that the hook does not allow.
        """
        return _contained(lambda: [check(result) for result in getattr(self.manager.hook, hook)(**arguments)])


class PluginFailed(Exception):
    """A plugin raised an exception, or returned a value that its hook does not allow."""


class Plugins:
    """Every loaded plugin, and the calls of their hooks."""

    def __init__(self) -> None:
        self._loaded: list[_Loaded] = []
        """The last registered first."""
        self._states: list[PluginState] = []
        for name, plugin in BUILT_IN.items():
            self.register(name, plugin, version=metadata.version("llmasos"), source="built-in")

    @classmethod
    def load(cls, *, only_built_in: bool = False) -> Plugins:
        """Load the built-ins, and what is installed at the entry-point group. One that cannot be loaded is skipped."""
        plugins = cls()
        if only_built_in:
            return plugins
        for entry in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
            version = entry.dist.version if entry.dist else ""
            try:
                plugins.register(entry.name, _contained(entry.load), version=version)
            except (LlmasosError, PluginFailed) as error:
                reason = error.message if isinstance(error, LlmasosError) else str(error)
                logger.error("plugin refused", extra={"plugin": entry.name, "reason": reason}, exc_info=error)
                plugins._states.append(PluginState(entry.name, version, "installed", (), reason))
        return plugins

    def register(
        self, name: str, plugin: object, *, version: str = "", source: Literal["built-in", "installed"] = "installed"
    ) -> None:
        """Add a plugin.

        Raises:
            Invalid: Its name is taken, it implements a hook that does not exist, takes an argument that its hook does
                not have, or implements one as a wrapper, a generator or a coroutine.
            PluginFailed: Inspecting it raised an exception.
        """
        if any(loaded.name == name for loaded in self._loaded):
            raise Invalid(_("a plugin {name} is loaded already", name=name))
        hooks = _contained(lambda: implemented_hooks(name, plugin))
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hooks)
        try:
            _contained(lambda: manager.register(plugin, name))
        except PluginFailed as error:
            reason = str(error.__cause__).splitlines()[-1]
            raise Invalid(
                _("the plugin {name} cannot be registered: {reason}", name=name, reason=reason),
            ) from error
        self._loaded.insert(0, _Loaded(name, manager, hooks))
        self._states.append(PluginState(name, version, source, hooks))

    def states(self) -> list[PluginState]:
        """Every plugin, loaded or refused, built-ins first."""
        return sorted(self._states, key=lambda state: (state.source != "built-in", state.name))

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return any(hook in plugin.hooks for plugin in self._loaded)

    def models(self) -> tuple[ModelEntry, ...]:
        """The results of `register_models`."""
        return tuple(model for _, offered in self._observed("register_models", results.models) for model in offered)

    def capabilities(self, taken: Iterable[Capability] = ()) -> list[Capability]:
        """The results of `register_capability`, except those whose name is `taken`: none may replace another."""
        names = {capability.name for capability in taken}
        found: list[Capability] = []
        for name, capability in self._observed("register_capability", results.capability):
            if capability.name in names:
                logger.error("capability refused", extra={"plugin": name, "capability": capability.name})
                continue
            names.add(capability.name)
            found.append(capability)
        return found

    def runtimes(self) -> dict[str, RuntimeKind]:
        """The results of `register_runtime`, by kind.

        The first to register a kind keeps it, so that no plugin replaces the host's. A kind that no manifest can name
        is refused.
        """
        found: dict[str, RuntimeKind] = {}
        for name, runtime in reversed(list(self._observed("register_runtime", results.runtime_kind))):
            if runtime.kind in found or not (name in BUILT_IN or runtime.kind.startswith("x-")):
                logger.error("runtime refused", extra={"plugin": name, "kind": runtime.kind})
                continue
            found[runtime.kind] = runtime if name in BUILT_IN else replace(runtime, make=partial(_make, name, runtime))
        return found

    def commands(self) -> dict[str, str]:
        """The results of `register_commands`."""
        found = self._observed("register_commands", results.commands)
        return {name: target for _, commands in found for name, target in commands.items()}

    def select(self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str) -> Choice:
        """The first plugin's choice that the caller may use, else the built-in choice.

        Raises:
            LlmasosError: As the built-in choice raises it.
        """
        hook, check = "select_model", results.choice_among(models)
        arguments = {"request": request, "models": models, "reach": reach, "locale": locale}
        for plugin in self._implementing(hook):
            built_in = plugin.name in BUILT_IN
            choices = plugin.ask(hook, check, arguments) if built_in else _observe(plugin, hook, check, arguments)
            for choice in choices:
                if built_in or reach.includes(choice.entry) or choice.entry.name == request.model:
                    return choice
                extra = {"plugin": plugin.name, "model": choice.entry.name}
                logger.error("plugin chose a model out of reach", extra=extra)
        raise AssertionError("the built-in choice is always loaded, and chooses or raises")

    def tune(self, request: GenerateRequest, model: ModelEntry) -> GenerateRequest:
        """Return the request with the parameters that plugins set."""
        hook = "tune_parameters"
        for plugin in self._implementing(hook):
            for tuned in _observe(plugin, hook, results.request, {"request": request, "model": model}):
                request = tuned
        return request

    def before(self, call: ModelCall) -> ModelCall:
        """Pass the call through every guard. Raises a guard's error, or `Unavailable` if one failed."""
        for plugin in self._implementing("before_model_call"):
            for rewritten in _guard(plugin, "before_model_call", results.request, {"call": call}):
                call = replace(call, request=rewritten)
        return call

    def after(self, call: ModelCall) -> list[TextFilter]:
        """The filters for the answer's text, in the reverse order of the guards before the call."""
        hook = "after_model_call"
        return [
            _GuardedFilter(plugin, text_filter)
            for plugin in reversed(self._implementing(hook))
            for text_filter in _guard(plugin, hook, results.text_filter, {"call": call})
        ]

    def cache_key(self, call: ModelCall) -> str | None:
        """The first plugin's key, bound to workspace, app and model."""
        for name, key in self._observed("cache_key", results.text, {"call": call}):
            return "\0".join((call.workspace, call.app or "", call.model, name, key))
        return None

    def on_usage(self, record: UsageRecord) -> None:
        """Notify every observer."""
        for __ in self._observed("on_usage", results.nothing, {"record": record}):
            pass

    def on_audit(self, record: AuditRecord) -> None:
        """Notify every observer."""
        for __ in self._observed("on_audit", results.nothing, {"record": record}):
            pass

    def check_release(self, manifest: Manifest, files: Mapping[str, bytes]) -> list[ReleaseFinding]:
        """The findings of every guard. Raises a guard's error, or `Unavailable` if one failed."""
        hook, arguments = "check_release", {"manifest": manifest, "files": files}
        return [
            finding
            for plugin in self._implementing(hook)
            for findings in _guard(plugin, hook, results.findings, arguments)
            for finding in findings
        ]

    def _implementing(self, hook: str) -> list[_Loaded]:
        return [plugin for plugin in self._loaded if hook in plugin.hooks]

    def _observed(
        self, hook: str, check: Check[T], arguments: Mapping[str, object] = MappingProxyType({})
    ) -> Iterator[tuple[str, T]]:
        """The results of a hook by the plugin's name; a failing plugin is logged and skipped."""
        for plugin in self._implementing(hook):
            for result in _observe(plugin, hook, check, arguments):
                yield plugin.name, result


@dataclass(frozen=True, slots=True)
class _GuardedFilter:
    """A plugin's filter; if it fails, the answer is refused rather than shown unfiltered."""

    plugin: _Loaded
    inner: TextFilter

    def feed(self, text: str) -> str:
        return _fail_closed(self.plugin, "after_model_call", lambda: results.text(self.inner.feed(text)))

    def finish(self) -> str:
        return _fail_closed(self.plugin, "after_model_call", lambda: results.text(self.inner.finish()))


def _make(name: str, kind: RuntimeKind, context: RuntimeContext) -> Runtime:
    """Create a plugin's runtime.

    Raises:
        Unavailable: It cannot be created.
    """
    try:
        return _contained(lambda: kind.make(context))
    except PluginFailed as error:
        logger.error("runtime failed", extra={"plugin": name, "kind": kind.kind}, exc_info=error)
        raise Unavailable(
            _("the plugin {name} cannot make its runtime {kind} ({error})", name=name, kind=kind.kind, error=error)
        ) from error


def _contained(act: Callable[[], T]) -> T:
    """Run code that may call a plugin.

    Raises:
        LlmasosError: As it was raised.
        PluginFailed: For everything else except Ctrl-C. Hooks are plain functions, so a `CancelledError` is the
            plugin's own: the host's cancellations arrive at an `await`.
    """
    try:
        return act()
    except (LlmasosError, KeyboardInterrupt):
        raise
    except results.WrongResult as error:
        raise PluginFailed(str(error)) from error
    except BaseException as error:
        raise PluginFailed(f"it raised {type(error).__name__}: {error}") from error


def _observe(plugin: _Loaded, hook: str, check: Check[T], arguments: Mapping[str, object]) -> list[T]:
    try:
        return plugin.ask(hook, check, arguments)
    except (LlmasosError, PluginFailed) as error:
        logger.error(
            "plugin failed and was passed over: %s", error, extra={"plugin": plugin.name, "hook": hook}, exc_info=error
        )
        return []


def _guard(plugin: _Loaded, hook: str, check: Check[T], arguments: Mapping[str, object]) -> list[T]:
    return _fail_closed(plugin, hook, lambda: plugin.ask(hook, check, arguments))


def _fail_closed(plugin: _Loaded, hook: str, act: Callable[[], T]) -> T:
    try:
        return _contained(act)
    except PluginFailed as error:
        # `ask` already contained it; a filter's call did not.
        logger.error("guard failed", extra={"plugin": plugin.name, "hook": hook}, exc_info=error)
        raise Unavailable(
            _(
                "the plugin {plugin} failed in {hook} ({error}), and what it guards is refused; fix it, or "
                "start without plugins: LLMASOS_PLUGINS=off",
                plugin=plugin.name,
                hook=hook,
                error=error,
            ),
        ) from error

"""Loads operators' plugins, and calls their hooks so that none can harm the host by failing."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Final, Literal, TypeVar

import pluggy
from pluggy import HookImpl

from llmasos.bundles.manifest import Manifest
from llmasos.errors import Invalid, LlmasosError, Unavailable
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.select import Choice, Reach, choose
from llmasos.hooks import (
    ENTRY_POINT_GROUP,
    PROJECT,
    AuditRecord,
    Finding,
    Hooks,
    ModelCall,
    TextFilter,
    UsageRecord,
    hookimpl,
)
from llmasos.kernel.capability import Capability
from llmasos.runtimes.kinds import COMPONENTS, NATIVE
from llmasos.runtimes.runtime import RuntimeKind

T = TypeVar("T")

logger = logging.getLogger(__name__)

HOOK_NAMES: Final = tuple(sorted(name for name, value in vars(Hooks).items() if inspect.isfunction(value)))


class Router:
    """The built-in choice of a model: the plainest honest one."""

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
    """A plugin as `llmasos plugins list` shows it. `problem` says why it was refused."""

    name: str
    version: str
    source: Literal["built-in", "installed"]
    hooks: tuple[str, ...]
    problem: str = ""


class Plugins:
    """Every plugin that is loaded, and the calls of their hooks."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)
        self._states: dict[str, PluginState] = {}
        for name, plugin in BUILT_IN.items():
            self.register(name, plugin, version=metadata.version("llmasos"), source="built-in")

    @classmethod
    def load(cls, *, only_built_in: bool = False) -> Plugins:
        """The built-ins, and what is installed at the entry-point group. One that cannot be loaded is left out."""
        plugins = cls()
        if only_built_in:
            return plugins
        for entry in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
            version = entry.dist.version if entry.dist else ""
            try:
                plugins.register(entry.name, entry.load(), version=version)
            except Exception as error:  # a plugin's import may raise anything
                reason = error.message if isinstance(error, LlmasosError) else f"{type(error).__name__}: {error}"
                logger.error("plugin refused", extra={"plugin": entry.name, "reason": reason})
                plugins._states[entry.name] = PluginState(entry.name, version, "installed", (), reason)
        return plugins

    def register(
        self, name: str, plugin: object, *, version: str = "", source: Literal["built-in", "installed"] = "installed"
    ) -> None:
        """Add a plugin.

        Raises:
            Invalid: It implements a hook that does not exist, or takes an argument that its hook does not have.
        """
        marked = _marked(plugin)
        for hook in marked:
            if hook not in HOOK_NAMES:
                near = difflib.get_close_matches(hook, HOOK_NAMES, n=1)
                hooks = ", ".join(HOOK_NAMES)
                hint = f"did you mean {near[0]}?" if near else f"the hooks are {hooks}"
                hint_zh = f"是否想用 {near[0]}？" if near else f"可用的钩子：{hooks}"
                raise Invalid(
                    f"the plugin {name} implements {hook}, which is not a hook; {hint}",
                    zh=f"插件 {name} 实现了 {hook}，而没有这个钩子；{hint_zh}",
                )
        if not marked:
            raise Invalid(
                f"the plugin {name} implements no hook; mark its functions with llmasos.hooks.hookimpl",
                zh=f"插件 {name} 没有实现任何钩子：请用 llmasos.hooks.hookimpl 标记其函数",
            )
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(name) and self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)
            raise Invalid(
                f"the plugin {name} cannot be registered: {str(error).splitlines()[-1]}",
                zh=f"无法注册插件 {name}：{str(error).splitlines()[-1]}",
            ) from None
        self._states[name] = PluginState(name, version, source, marked)

    def states(self) -> list[PluginState]:
        """Every plugin, loaded or refused, built-ins first."""
        return sorted(self._states.values(), key=lambda state: (state.source != "built-in", state.name))

    def models(self) -> list[ModelEntry]:
        """What `register_models` returned."""
        return [model for _, models in self._ask("register_models") for model in models]

    def capabilities(self, taken: Iterable[Capability] = ()) -> list[Capability]:
        """What `register_capability` returned, without those whose name is `taken`: none may stand in for another."""
        names = {capability.name for capability in taken}
        found: list[Capability] = []
        for name, capability in self._ask("register_capability"):
            if capability.name in names:
                logger.error("capability refused", extra={"plugin": name, "capability": capability.name})
                continue
            names.add(capability.name)
            found.append(capability)
        return found

    def runtimes(self) -> dict[str, RuntimeKind]:
        """What `register_runtime` returned, by kind: the first to register a kind has it, so nobody takes the host's.

        A plugin's kind that no manifest can name is refused.
        """
        found: dict[str, RuntimeKind] = {}
        for name, runtime in reversed(list(self._ask("register_runtime"))):
            if runtime.kind in found or not (name in BUILT_IN or runtime.kind.startswith("x-")):
                logger.error("runtime refused", extra={"plugin": name, "kind": runtime.kind})
                continue
            found[runtime.kind] = runtime
        return found

    def implement(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(self._implementations(hook))

    def commands(self) -> dict[str, str]:
        """What `register_commands` returned."""
        return {name: target for _, commands in self._ask("register_commands") for name, target in commands.items()}

    def select(self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str) -> Choice:
        """The first plugin's choice that the caller may use; at last the built-in's, whose errors pass."""
        arguments = {"request": request, "models": models, "reach": reach, "locale": locale}
        answers = self._ask("select_model", let_through=("llmasos-router",), **arguments)
        for name, answer in answers:
            choice: Choice = answer
            if reach.includes(choice.entry) or choice.entry.name == request.model:
                return choice
            logger.error("plugin chose a model out of reach", extra={"plugin": name, "model": choice.entry.name})
        raise Unavailable("no plugin chose a model, not even the built-in one", zh="没有任何插件选择模型，内置的也没有")

    def tune(self, request: GenerateRequest, model: ModelEntry) -> GenerateRequest:
        """The request, with what each plugin set."""
        for each in self._implementations("tune_parameters"):
            for _, tuned in _answers("tune_parameters", [each], {"request": request, "model": model}):
                request = tuned
        return request

    def before(self, call: ModelCall) -> ModelCall:
        """The call as every guard left it. Raises what a guard raised, or `Unavailable` where one failed."""
        for each in self._implementations("before_model_call"):
            rewritten = _guarded("before_model_call", each, {"call": call})
            if rewritten is not None:
                call = replace(call, request=rewritten)
        return call

    def after(self, call: ModelCall) -> list[TextFilter]:
        """The filters for the answer's text. Those that came last before the call come first after it."""
        hook = "after_model_call"
        made = [(each, _guarded(hook, each, {"call": call})) for each in reversed(self._implementations(hook))]
        return [_GuardedFilter(each, text_filter) for each, text_filter in made if text_filter is not None]

    def cache_key(self, call: ModelCall) -> str | None:
        """The first plugin's key, bound to what must never be mixed."""
        for name, key in self._ask("cache_key", call=call):
            return "\0".join((call.workspace, call.app or "", call.model, name, key))
        return None

    def on_usage(self, record: UsageRecord) -> None:
        """Tell every observer."""
        for _ in self._ask("on_usage", record=record):
            pass

    def on_audit(self, record: AuditRecord) -> None:
        """Tell every observer."""
        for _ in self._ask("on_audit", record=record):
            pass

    def check_release(self, manifest: Manifest, files: Mapping[str, bytes]) -> list[Finding]:
        """What every guard found."""
        hook, arguments = "check_release", {"manifest": manifest, "files": files}
        found = [_guarded(hook, each, arguments) for each in self._implementations(hook)]
        return [finding for findings in found for finding in findings or ()]

    def _implementations(self, hook: str) -> list[HookImpl]:
        # pluggy keeps them in the order of registration; the last registered is asked first.
        return list(reversed(getattr(self._manager.hook, hook).get_hookimpls()))

    def _ask(self, hook: str, *, let_through: tuple[str, ...] = (), **arguments: object) -> Iterator[tuple[str, Any]]:
        return _answers(hook, self._implementations(hook), arguments, let_through)


@dataclass(frozen=True, slots=True)
class _GuardedFilter:
    """A plugin's filter; where it raises, the answer is refused rather than shown unfiltered."""

    implementation: HookImpl
    inner: TextFilter

    def feed(self, text: str) -> str:
        return _fail_closed("after_model_call", self.implementation, lambda: self.inner.feed(text))

    def finish(self) -> str:
        return _fail_closed("after_model_call", self.implementation, self.inner.finish)


def _answers(
    hook: str, implementations: list[HookImpl], arguments: Mapping[str, object], let_through: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """What each answers that has an opinion; one that raises is logged and passed over."""
    for each in implementations:
        try:
            answer = _call(each, arguments)
        except Exception:
            if each.plugin_name in let_through:
                raise
            logger.exception("plugin failed and was passed over", extra={"plugin": each.plugin_name, "hook": hook})
            continue
        if answer is not None:
            yield each.plugin_name, answer


def _guarded(hook: str, implementation: HookImpl, arguments: Mapping[str, object]) -> Any:
    return _fail_closed(hook, implementation, lambda: _call(implementation, arguments))


def _fail_closed(hook: str, implementation: HookImpl, act: Callable[[], T]) -> T:
    try:
        return act()
    except LlmasosError:
        raise
    except Exception as error:
        name = implementation.plugin_name
        logger.exception("guard failed", extra={"plugin": name, "hook": hook})
        raise Unavailable(
            f"the plugin {name} failed in {hook} ({type(error).__name__}), and what it guards is refused; "
            "mend it, or start without plugins: LLMASOS_PLUGINS=off",
            zh=f"插件 {name} 在 {hook} 中出错（{type(error).__name__}），"
            "它所守护的操作被拒绝：请修复该插件，或不加载插件启动：LLMASOS_PLUGINS=off",
        ) from error


def _call(implementation: HookImpl, arguments: Mapping[str, object]) -> Any:
    return implementation.function(*(arguments[name] for name in implementation.argnames))


def _marked(plugin: object) -> tuple[str, ...]:
    """The names of the functions that are marked as implementations."""
    marked: list[str] = []
    for name in dir(plugin):
        value = inspect.getattr_static(plugin, name)
        options = getattr(value, f"{PROJECT}_impl", None)
        if options is not None:
            marked.append(options.get("specname") or name)
    return tuple(marked)

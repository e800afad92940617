"""Plugins that raise, return invalid values, or have invalid markers."""

import asyncio
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace

import pytest
from tests.platform.plugins.plugin_objects import CALL, MODELS, REQUEST, always, fault, plugin, with_plugins

from llmasos.errors import Invalid, ManifestRejected, Unavailable
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.routing import EVERYTHING, Choice
from llmasos.hooks import AuditRecord, ReleaseFinding, UsageRecord, hookimpl
from llmasos.host import Host, HostParts
from llmasos.kernel.capability import ContractFunction, Operation, PreparedCall
from llmasos.kernel.invocation import Principal
from llmasos.plugin_marks import HOOK_NAMES
from llmasos.plugins import Plugins
from llmasos.quotas.meters import Used
from llmasos.runtimes.kinds import COMPONENTS
from llmasos.runtimes.runtime import RuntimeKind
from llmasos.settings import Settings
from llmasos.testing import small_host


class BadName:
    """A capability whose attributes raise."""

    contract = MappingProxyType({})
    audited = True

    @property
    def name(self):
        raise SystemExit("bad name")

    def prepare(self, *_):
        raise AssertionError


WRONG = {
    "register_models": (1, ["one"], [object()], "text", BadName),
    "select_model": (MODELS["one"], Choice("one"), Choice(MODELS["one"].model_copy(update={"name": "made-up"}))),
    "tune_parameters": ({"temperature": 1}, REQUEST.model_copy(update={"temperature": "hot"}), GenerateRequest),
    "cache_key": (1, b"key", ["key"]),
    "on_usage": (True, "done"),
    "on_audit": (True, "done"),
    "register_capability": (1, BadName(), BadName, SimpleNamespace(name="x", contract={"go": print}, audited=True)),
    "register_runtime": ("x-gpu", RuntimeKind("x-gpu", None), RuntimeKind(7, print)),
    "register_commands": (["hello"], {"hello": print}, {"Hello World": "a:b"}, {"hello": "no target"}),
    "before_model_call": (True, "text", REQUEST.model_copy(update={"messages": []})),
    "after_model_call": (True, SimpleNamespace(feed=str), lambda text: text),
    "check_release": (True, [ReleaseFinding], "fine", [ReleaseFinding(7)], ["bad"]),
}
GUARDS = {"before_model_call", "after_model_call", "check_release"}
RAISED = (SystemExit(3), BaseException("odd"), asyncio.CancelledError(), GeneratorExit(), RecursionError("deep"))


def test_every_hook_has_wrong_results_that_are_tried():
    assert set(WRONG) == set(HOOK_NAMES)


def call(plugins, hook):
    """Call a hook as the host does."""
    record = UsageRecord("default", "local", None, "i", "model", "generate", Used(), 0.1, "ok")
    calls = {
        "register_models": plugins.models,
        "select_model": lambda: plugins.select(REQUEST, MODELS, EVERYTHING, "en"),
        "tune_parameters": lambda: plugins.tune(REQUEST, MODELS["one"]),
        "cache_key": lambda: plugins.cache_key(CALL),
        "on_usage": lambda: plugins.on_usage(record),
        "on_audit": lambda: plugins.on_audit(AuditRecord("default", "local", None, None, "install", "ok", {})),
        "register_capability": plugins.capabilities,
        "register_runtime": plugins.runtimes,
        "register_commands": plugins.commands,
        "before_model_call": lambda: plugins.before(CALL),
        "after_model_call": lambda: plugins.after(CALL),
        "check_release": lambda: plugins.check_release(None, {}),
    }
    return calls[hook]()


@pytest.mark.parametrize(
    ("hook", "act"),
    [(hook, always(value)) for hook, values in WRONG.items() for value in values]
    + [(hook, fault(error)) for hook in HOOK_NAMES for error in RAISED],
)
def test_no_result_and_no_exception_of_a_plugin_escapes(hook, act, caplog):
    """10-14: only `Exception` was contained: wrong types and `SystemExit` came out, in the host's start too."""
    plugins = with_plugins(plugin(**{hook: act}))
    if hook in GUARDS:
        with pytest.raises(Unavailable, match=rf"plugin-0 failed in {hook}.*LLMASOS_PLUGINS=off"):
            call(plugins, hook)
    else:
        assert call(plugins, hook) == call(Plugins(), hook)
    assert [(record.plugin, record.hook) for record in caplog.records] == [("plugin-0", hook)]


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_ctrl_c_in_a_plugin_is_the_hosts(hook):
    plugins = with_plugins(plugin(**{hook: fault(KeyboardInterrupt())}))
    with pytest.raises(KeyboardInterrupt):
        call(plugins, hook)


@pytest.mark.parametrize("method", ["feed", "finish"])
@pytest.mark.parametrize("act", [lambda *_: None, lambda *_: b"bytes", fault(SystemExit())])
def test_a_filter_that_returns_no_text_refuses_the_answer(method, act):
    """10-14: what a filter returns was not checked."""
    broken = SimpleNamespace(**{"feed": str, "finish": str, method: act})
    (text_filter,) = with_plugins(plugin(after_model_call=lambda: broken)).after(CALL)
    with pytest.raises(Unavailable, match="plugin-0 failed in after_model_call"):
        text_filter.feed("text")
        text_filter.finish()


async def a_coroutine(record):
    pass


def a_generator(record):
    yield


async def an_async_generator(record):
    yield


@pytest.mark.parametrize(
    "marked",
    [
        hookimpl(wrapper=True)(a_generator),
        hookimpl(hookwrapper=True)(a_generator),
        hookimpl(a_generator),
        hookimpl(a_coroutine),
        hookimpl(an_async_generator),
        hookimpl(type("AClass", (), {})),
    ],
)
def test_wrappers_generators_coroutines_and_classes_are_refused_at_load(marked):
    """10-14: `wrapper=True` gave a generator as the hook's value."""
    with pytest.raises(Invalid, match="on_usage as a wrapper, a generator, a coroutine or a class"):
        with_plugins(SimpleNamespace(on_usage=marked))


def test_no_mark_of_pluggys_puts_a_plugin_before_the_hosts_own_runtimes():
    """10-14, its kind: a plugin marked `trylast` registered its runtime before the host's."""
    mine = RuntimeKind("wasm", print)
    late = SimpleNamespace(register_runtime=hookimpl(trylast=True)(lambda: mine))
    assert with_plugins(late).runtimes()["wasm"] is COMPONENTS


@pytest.mark.parametrize("error", [SystemExit(1), BaseException("odd"), ImportError("gone")])
def test_a_plugin_whose_import_raises_is_refused_and_named(error, monkeypatch):
    """10-14: `SystemExit` in a plugin's import ended the host."""
    entry = SimpleNamespace(name="bad", load=fault(error), dist=None)
    monkeypatch.setattr("llmasos.plugins.metadata.entry_points", lambda group: [entry])
    state = next(state for state in Plugins.load().states() if state.name == "bad")
    assert type(error).__name__ in state.problem


def bad_capability():
    return BadName()


async def test_a_bad_capability_does_not_stop_the_hosts_start(tmp_path, caplog):
    """10-14: it did."""
    plugins = with_plugins(
        plugin(register_capability=bad_capability, register_models=lambda: 1, register_runtime=lambda: 1)
    )
    async with Host.open(Settings(home=tmp_path), HostParts(plugins=plugins)) as host:
        host.check()
        assert host.gateway.registry.models
        with pytest.raises(ManifestRejected):
            host.runtimes.of("x-other")
    assert {record.hook for record in caplog.records if hasattr(record, "hook")} == {
        "register_capability",
        "register_models",
        "register_runtime",
    }


@dataclass(frozen=True)
class Go(Operation):
    capability = "x-mine"
    function = "go"


class Raising:
    """A capability that raises when it prepares a call, or when it runs one."""

    name = "x-mine"
    audited = False
    contract = MappingProxyType({"go": ContractFunction(lambda arguments: Go())})

    def __init__(self, where: str, error: BaseException) -> None:
        self.where, self.error = where, error

    def prepare(self, invocation, operation):
        if self.where == "prepare":
            raise self.error

        async def execute(granted):
            raise self.error

        return PreparedCall(execute)


@pytest.mark.parametrize("where", ["prepare", "execute"])
@pytest.mark.parametrize("error", [SystemExit(1), BaseException("odd"), ZeroDivisionError()])
async def test_nothing_that_a_plugins_capability_raises_ends_the_host(database, where, error):
    """10-14, its kind: `SystemExit` in a call went through the kernel into the event loop."""
    async with (
        small_host(database, Raising(where, error)) as host,
        host.invocations.open(Principal(), None, "act") as invocation,
    ):
        with pytest.raises(Unavailable, match=r"could not do x-mine\.go; host\.log"):
            await host.guest(invocation, "x-mine", "go", [])


@pytest.mark.parametrize("error", [SystemExit(1), ZeroDivisionError()])
async def test_a_plugins_runtime_that_cannot_be_made_is_named(tmp_path, error):
    """10-14, its kind."""
    broken = plugin(register_runtime=lambda: RuntimeKind("x-gpu", fault(error)))
    async with Host.open(Settings(home=tmp_path), HostParts(plugins=with_plugins(broken))) as host:
        with pytest.raises(Unavailable, match="plugin-0 cannot make its runtime x-gpu"):
            host.runtimes.of("x-gpu")

"""Operators' plugins: refused at load, contained at run time, asked in order."""

import asyncio
import logging
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace

import pytest

from llmasos import hooks
from llmasos.errors import Denied, Invalid, ManifestRejected, ModelUnavailable, Unavailable
from llmasos.gateway.models import FREE, ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.routing import EVERYTHING, Choice, Reach
from llmasos.hooks import AuditRecord, ModelCall, ReleaseFinding, UsageRecord, hookimpl
from llmasos.host import Host, Parts
from llmasos.i18n import render
from llmasos.kernel.capability import ContractFunction, Operation, PreparedCall
from llmasos.kernel.invocation import Principal
from llmasos.plugin_marks import HOOK_NAMES
from llmasos.plugins import Plugins
from llmasos.quotas.meters import Used
from llmasos.runtimes.kinds import COMPONENTS, NATIVE
from llmasos.runtimes.runtime import RuntimeKind
from llmasos.settings import Settings
from llmasos.testing import FakeApps, small_host

REQUEST = GenerateRequest.model_validate({"messages": [{"role": "user", "content": "hello"}]})
CALL = ModelCall(REQUEST, "one", "local", "default", "local", "acme/a")
MODELS = {
    name: ModelEntry(name=name, litellm=f"x/{name}", tier=tier, price=FREE)
    for name, tier in (("one", "fast"), ("two", "best"))
}


def plugin(**functions):
    return SimpleNamespace(**{name: hookimpl(function) for name, function in functions.items()})


def with_plugins(*each):
    plugins = Plugins()
    for number, one in enumerate(each):
        plugins.register(f"plugin-{number}", one)
    return plugins


def boom(*_args):
    raise ValueError("boom")


def test_an_unknown_hook_is_refused_with_the_nearest_name():
    with pytest.raises(Invalid, match="did you mean select_model"):
        with_plugins(plugin(select_modle=lambda: None))


def test_an_argument_that_the_hook_does_not_have_is_refused():
    with pytest.raises(Invalid, match="plugin-0"):
        with_plugins(plugin(on_usage=lambda recrod: None))


def test_a_plugin_without_hooks_is_refused():
    with pytest.raises(Invalid, match="no hook"):
        with_plugins(SimpleNamespace(on_usage=print))


def test_without_plugins_the_built_in_chooses_and_its_error_passes():
    plugins = Plugins()
    assert plugins.select(REQUEST, MODELS, Reach(("fast",), ()), "en").entry.name == "one"
    with pytest.raises(ModelUnavailable):
        plugins.select(REQUEST, {}, EVERYTHING, "en")


def test_a_plugins_choice_comes_before_the_built_in_and_the_last_registered_first():
    first, second = (
        plugin(select_model=lambda models: Choice(models["one"])),
        plugin(select_model=lambda models: Choice(models["two"])),
    )
    assert with_plugins(first, second).select(REQUEST, MODELS, EVERYTHING, "en").entry.name == "two"


def test_a_choice_out_of_reach_is_passed_over():
    greedy = plugin(select_model=lambda models: Choice(models["two"]))
    assert with_plugins(greedy).select(REQUEST, MODELS, Reach(("fast",), ()), "en").entry.name == "one"


def test_a_choice_that_raises_is_logged_with_the_plugins_name_and_passed_over(caplog):
    with caplog.at_level(logging.ERROR):
        assert with_plugins(plugin(select_model=boom)).select(REQUEST, MODELS, EVERYTHING, "en").entry.name == "one"
    assert caplog.records[0].plugin == "plugin-0"


def test_parameters_are_tuned_by_each_in_turn():
    cool = plugin(tune_parameters=lambda request: request.model_copy(update={"temperature": 0.0}))
    short = plugin(tune_parameters=lambda request, model: request.model_copy(update={"max_tokens": 9}))
    tuned = with_plugins(cool, short).tune(REQUEST, MODELS["one"])
    assert (tuned.temperature, tuned.max_tokens) == (0.0, 9)


@pytest.mark.parametrize("hook", ["before_model_call", "after_model_call"])
def test_a_guard_that_fails_refuses_the_call_and_is_named(hook):
    plugins = with_plugins(plugin(**{hook: lambda call: boom()}))
    with pytest.raises(Unavailable, match=r"plugin-0 failed.*LLMASOS_PLUGINS=off"):
        plugins.before(CALL)
        plugins.after(CALL)


def test_a_guard_refuses_with_its_own_message():
    def refuse(call):
        raise Denied("no weapons here")

    with pytest.raises(Denied, match="no weapons here"):
        with_plugins(plugin(before_model_call=refuse)).before(CALL)


def test_a_filter_that_fails_refuses_the_answer():
    broken = SimpleNamespace(feed=boom, finish=lambda: "")
    (text_filter,) = with_plugins(plugin(after_model_call=lambda: broken)).after(CALL)
    with pytest.raises(Unavailable, match="plugin-0"):
        text_filter.feed("text")


def test_every_observer_is_called_though_one_raises(caplog):
    seen = []

    def watch(record):
        seen.append(record)

    plugins = with_plugins(plugin(on_usage=watch), plugin(on_usage=boom, on_audit=boom))
    record = UsageRecord("default", "local", None, "i", "model", "generate", Used(), 0.1, "ok")
    plugins.on_usage(record)
    plugins.on_audit(AuditRecord("default", "local", None, None, "install", "ok", {}))
    assert seen == [record]


def test_a_cache_key_is_bound_to_workspace_app_and_model():
    key = with_plugins(plugin(cache_key=lambda call: "k")).cache_key(CALL)
    assert key is not None
    assert {"default", "acme/a", "one", "k"} <= set(key.split("\0"))
    assert Plugins().cache_key(CALL) is None


def test_release_checks_are_gathered_and_fail_closed():
    found = plugin(check_release=lambda manifest: [ReleaseFinding("too large", blocks=True)])
    assert with_plugins(found).check_release(None, {}) == [ReleaseFinding("too large", blocks=True)]
    with pytest.raises(Unavailable, match="check_release"):
        with_plugins(plugin(check_release=lambda manifest: boom())).check_release(None, {})


def test_registrations_are_gathered():
    plugins = with_plugins(
        plugin(register_models=lambda: [MODELS["two"]], register_commands=lambda: {"hello": "module:function"})
    )
    assert [model.name for model in plugins.models()] == ["two"]
    assert plugins.commands() == {"hello": "module:function"}


def gpu(kind="x-gpu"):
    return plugin(register_runtime=lambda: RuntimeKind(kind, lambda context: FakeApps().runtime(context.handler)))


def test_the_hosts_own_runtimes_are_registered_as_a_plugins_are():
    assert list(Plugins().runtimes()) == ["wasm", "python"]
    assert list(with_plugins(gpu(), plugin(on_usage=lambda record: None)).runtimes()) == ["wasm", "python", "x-gpu"]


@pytest.mark.parametrize("kind", ["wasm", "python", "gpu"])
def test_no_plugin_takes_a_runtime_of_the_hosts_or_one_that_no_manifest_can_name(kind, caplog):
    runtimes = with_plugins(gpu(kind)).runtimes()
    assert [runtimes["wasm"], runtimes["python"]] == [COMPONENTS, NATIVE]
    assert list(runtimes) == ["wasm", "python"]
    assert [(record.plugin, record.kind) for record in caplog.records] == [("plugin-0", kind)]


def test_the_first_plugin_to_register_a_kind_has_it(caplog):
    first, second = gpu(), gpu()
    chosen = with_plugins(first, second).runtimes()["x-gpu"]
    assert chosen.make is not None
    assert [record.plugin for record in caplog.records] == ["plugin-1"]


def fault(message):
    def raise_it(*_args):
        raise message

    return raise_it


def always(value):
    return lambda: value


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
    """What the host gets from a hook."""
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
    async with Host.open(Settings(home=tmp_path), Parts(plugins=plugins)) as host:
        host.check()
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
    async with Host.open(Settings(home=tmp_path), Parts(plugins=with_plugins(broken))) as host:
        with pytest.raises(Unavailable, match="plugin-0 cannot make its runtime x-gpu"):
            host.runtimes.of("x-gpu")


async def test_a_runtime_of_a_plugin_is_made_once_and_an_unknown_kind_is_refused_with_the_cure(tmp_path):
    made = []
    mine = RuntimeKind(
        "x-gpu", lambda context: made.append(context.settings.home) or FakeApps().runtime(context.handler)
    )
    plugins = with_plugins(plugin(register_runtime=lambda: mine))
    async with Host.open(Settings(home=tmp_path), Parts(plugins=plugins)) as host:
        assert host.runtimes.of("x-gpu") is host.runtimes.of("x-gpu")
        with pytest.raises(ManifestRejected, match=r'No runtime here runs kind = "x-tpu": install.*or build') as raised:
            host.runtimes.of("x-tpu")
        assert "x-tpu" in render(raised.value.message, "zh")
    assert made == [tmp_path]


def test_every_hook_is_documented_with_its_arguments():
    for name in HOOK_NAMES:
        assert getattr(hooks.Hooks, name).__doc__, name
    assert hooks.__doc__ is not None
    for kind in ("before_model_call", "after_model_call", "check_release", "on_usage", "on_audit", "select_model"):
        assert kind in hooks.__doc__


def test_the_states_name_version_source_and_hooks():
    states = with_plugins(plugin(on_usage=lambda record: None)).states()
    assert [state.name for state in states] == ["llmasos-components", "llmasos-native", "llmasos-router", "plugin-0"]
    assert states[3].hooks == ("on_usage",)

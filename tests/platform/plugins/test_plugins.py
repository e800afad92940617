"""Operators' plugins: refused at load, contained at run time, called in order."""

import logging
from types import SimpleNamespace

import pytest
from tests.platform.plugins.plugin_objects import CALL, MODELS, REQUEST, boom, plugin, with_plugins

from llmasos import hooks
from llmasos.errors import Denied, Invalid, ManifestRejected, ModelUnavailable, Unavailable
from llmasos.gateway.routing import EVERYTHING, Choice, Reach
from llmasos.hooks import AuditRecord, ReleaseFinding, UsageRecord
from llmasos.host import Host, HostParts
from llmasos.i18n import render
from llmasos.plugin_marks import HOOK_NAMES
from llmasos.plugins import Plugins
from llmasos.quotas.meters import Used
from llmasos.runtimes.kinds import COMPONENTS, NATIVE
from llmasos.runtimes.runtime import RuntimeKind
from llmasos.settings import Settings
from llmasos.testing import FakeApps


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


async def test_a_runtime_of_a_plugin_is_made_once_and_an_unknown_kind_is_refused_with_the_cure(tmp_path):
    made = []
    mine = RuntimeKind(
        "x-gpu", lambda context: made.append(context.settings.home) or FakeApps().runtime(context.handler)
    )
    plugins = with_plugins(plugin(register_runtime=lambda: mine))
    async with Host.open(Settings(home=tmp_path), HostParts(plugins=plugins)) as host:
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

"""Plugins made of functions."""

from types import SimpleNamespace

from llmasos.gateway.models import FREE, ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.hooks import ModelCall, hookimpl
from llmasos.plugins import Plugins

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


def fault(message):
    def raise_it(*_args):
        raise message

    return raise_it


def always(value):
    return lambda: value

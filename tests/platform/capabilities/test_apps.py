"""Calling other apps: granted, refused, bounded."""

from dataclasses import dataclass

import pytest
from capability_calls import prepared

from llmasos.bundles.manifest import AppsPermission, LocalisedText
from llmasos.capabilities.apps import AppsCapability
from llmasos.errors import Denied, Invalid
from llmasos.kernel.invocation import Event, InstalledApp, Invocation, Principal


@dataclass
class Result:
    output: object


def chain(*ids, apps=("acme/callee",), emit=None):
    """An invocation of the last app, called by those before it."""
    invocation = None
    grant = AppsPermission(capability="apps", apps=apps, reason=LocalisedText(en="To test."))
    for app_id in ids:
        app = InstalledApp(app_id, "1.0", app_id, {"apps": grant}, frozenset({"apps"}))
        options = {"emit": emit} if emit else {}
        invocation = Invocation(Principal(user="ada"), app, "act", parent=invocation, **options)
    return invocation


class Runner:
    def __init__(self):
        self.seen = []

    async def __call__(self, principal, app_id, action, value, emit, *, parent):
        self.seen.append((principal.user, app_id, action, value, parent))
        await emit(Event("chunk", "not for the user"))
        await emit(Event("notice", "for the user"))
        return Result({"said": value["text"]})


def call(capability, invocation, app_id="acme/callee", text='{"text": "你好"}'):
    return prepared(capability, invocation, "call", [app_id, "act", text])


async def test_a_granted_app_is_called_as_part_of_the_caller():
    runner, shown = Runner(), []

    async def emit(event):
        shown.append(event)

    invocation = chain("acme/caller", emit=emit)
    operation = call(AppsCapability(runner, 8), invocation)
    outcome = await operation.execute(operation.demand)
    assert outcome.answer == {"said": "你好"}
    assert runner.seen == [("ada", "acme/callee", "act", {"text": "你好"}, invocation)]
    assert [event.text for event in shown] == ["for the user"]
    assert dict(operation.detail) == {"app": "acme/callee", "action": "act"}


def test_an_app_that_was_not_granted_is_denied_with_the_lines_to_add():
    with pytest.raises(Denied, match=r'apps = \["acme/other"\]'):
        call(AppsCapability(Runner(), 8), chain("acme/caller"), "acme/other")


def test_a_cycle_is_denied():
    invocation = chain("acme/first", "acme/second", apps=("acme/first",))
    with pytest.raises(Denied, match="acme/second < acme/first"):
        call(AppsCapability(Runner(), 8), invocation, "acme/first")


def test_a_chain_that_is_too_deep_is_denied():
    invocation = chain(*(f"acme/app{number}" for number in range(3)))
    with pytest.raises(Denied, match="3 deep"):
        call(AppsCapability(Runner(), 3), invocation)


@pytest.mark.parametrize("arguments", [[], ["a"], [1, 2, 3], ["acme/callee", "act", "{"]])
def test_malformed_arguments_are_refused(arguments):
    with pytest.raises(Invalid):
        prepared(AppsCapability(Runner(), 8), chain("acme/caller"), "call", arguments)


def test_a_made_up_name_fills_no_log():
    """11-S13: 20 lines of 1 MB in the append-only log, by a made-up action name."""
    operation = prepared(
        AppsCapability(Runner(), 8), chain("acme/caller"), "call", ["acme/callee", "x" * 1_000_000, "{}"]
    )
    assert len(str(operation.detail)) < 400

"""The hooks of a native app, for pluggy: an `App` registered at the entry-point group `llmasos.apps` implements them.

A runner makes one `PluginManager` for one app:

    manager = plugin_manager()
    manager.load_setuptools_entrypoints(GROUP)
    manager.hook.call(host=host, action="translate", input_json="{}")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pluggy

from llmasos_sdk.host import Host, JsonValue

GROUP: Final = "llmasos.apps"
PROJECT: Final = "llmasos_apps"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class AppHooks:
    """What a native runner asks of an app."""

    @hookspec(firstresult=True)
    def actions(self) -> list[dict[str, JsonValue]]:
        """The actions, as they stand in `actions.json`."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def call(self, host: Host, action: str, input_json: str) -> str:
        """Run one action.

        Args:
            host: Carries the invocation's calls; each invocation has its own.
            action: Its name.
            input_json: A JSON object with its inputs.

        Raises:
            AppError: A case of the contract's `error` variant.
        """
        raise NotImplementedError

    @hookspec
    def install(self, host: Host) -> None:
        """The app was installed."""

    @hookspec
    def upgrade(self, host: Host, from_version: str) -> None:
        """The app was upgraded from another release."""

    @hookspec
    def uninstall(self, host: Host) -> None:
        """The app is about to be removed."""

    @hookspec
    def event(self, host: Host, event: Mapping[str, JsonValue]) -> None:
        """Something happened that the app asked to hear of: {"name": …, "payload": …}."""


def plugin_manager() -> pluggy.PluginManager:
    """A manager that knows these hooks and no plugin yet."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(AppHooks)
    return manager

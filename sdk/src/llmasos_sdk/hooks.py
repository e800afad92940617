"""The hooks of a native app, for pluggy: an `App` registered at the entry-point group `llmasos.apps` implements them.

A runner makes one `PluginManager` for one app:

    manager = plugin_manager()
    manager.load_setuptools_entrypoints(GROUP)
    manager.hook.call(host=host, action="translate", input_json="{}")

Four of them are lifecycle events: `install`, `upgrade`, `uninstall` and `event`. An app is notified of those that
it lists in `actions`, each by an entry such as {"name": "@install"}; an `App` lists those that have a function. A
component receives them by the same names, through `handler.call`. The rules of each:

- It is an invocation like any other, of the user who installs, upgrades or removes the app, whose storage it sees: with
  the installation's own grants, metered, within its quotas and limits and within 30 seconds, and audited. No caller
  can ask for one.
- It comes at most once. An installation stands whatever its hook does, and if the hook fails or the host dies first,
  it does not come again: write what must be there so that the first action can make it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pluggy

from llmasos_sdk.host import Host, JsonValue

GROUP: Final = "llmasos.apps"
PROJECT: Final = "llmasos_apps"

# In `actions` and `handler.call` each is named with an @ before it, as no action is.
LIFECYCLE_EVENTS: Final = ("install", "upgrade", "uninstall", "event")

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class AppHooks:
    """The functions of an app that a native runner calls."""

    @hookspec(firstresult=True)
    def actions(self) -> list[dict[str, JsonValue]]:
        """The actions and the lifecycle events with a hook, as in `actions.json`."""
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
        """The app was installed. It can be used from now on, by other users of the workspace even before this ends."""

    @hookspec
    def upgrade(self, host: Host, from_version: str) -> None:
        """Another release of the app runs now: a newer one, or, after a rollback, an older one.

        Args:
            host: Carries the invocation's calls.
            from_version: The release that ran before.
        """

    @hookspec
    def uninstall(self, host: Host) -> None:
        """The app is about to be removed; whatever it does, it is removed.

        Its stored data is kept or deleted as the user chose, so there is no need to delete it here.
        """

    @hookspec
    def event(self, host: Host, event: Mapping[str, JsonValue]) -> None:
        """Something happened to the installation.

        There is one event today. A change of the form's values comes with an upgrade, and so as `upgrade`.

        Args:
            host: Carries the invocation's calls.
            event: {"name": "grants", "payload": {"held": […], "added": […], "removed": […]}}: the user took a
                capability from the app, or gave it back; each is a list of names such as `http`.
        """


def plugin_manager() -> pluggy.PluginManager:
    """A plugin manager with these hooks and without plugins."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(AppHooks)
    return manager

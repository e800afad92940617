"""Lifecycle events: notifies an app of changes to its own installation, and words the failure of a hook.

An app is notified after a change is committed, and before its removal: its hook always runs as an installed release,
and cannot undo, prevent or long delay the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from llmasos.errors import LlmasosError
from llmasos.i18n import _
from llmasos.installs.service import InstallOutcome
from llmasos.kernel.invocation import Json, Principal


class Tell(Protocol):
    """Runs an app's hook for a lifecycle event as an invocation of the app."""

    async def __call__(self, principal: Principal, app_id: str, event: str, value: Json, /) -> object:
        """Run the hook to its end.

        Raises:
            LlmasosError: How it failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class InstallationState:
    """An installation before or after a change."""

    version: str
    granted: frozenset[str]
    hooks: frozenset[str]
    """The lifecycle events that the app has a hook for."""


LifecycleEvent: TypeAlias = tuple[str, dict[str, Any]]
"""Its name, such as `@install`, and the input of its hook."""


def event_of(
    outcome: InstallOutcome, before: InstallationState | None, now: InstallationState
) -> LifecycleEvent | None:
    """The lifecycle event of a change; None if the app has no hook for it."""
    event, value = "", dict[str, Any]()
    match outcome:
        case "installed":
            event = "@install"
        case "upgraded" | "rolled-back":
            event, value = "@upgrade", {"from_version": before.version if before else ""}
        case "granted" | "revoked":
            had = before.granted if before else frozenset[str]()
            payload = {
                "held": sorted(now.granted), "added": sorted(now.granted - had), "removed": sorted(had - now.granted)
            }  # fmt: skip
            event, value = "@event", {"event": {"name": "grants", "payload": payload}}
        case "uninstalled":
            event = "@uninstall"
        case "already" | "restored" | "waiting" | "configured" | "narrowed":
            pass
    return (event, value) if event in now.hooks else None


def failure_of(app: str, event: str, error: LlmasosError) -> LlmasosError:
    """Word a hook's failure: what was changed anyway, why it failed, and what to do."""
    stands, cure = {
        "@install": (
            _("{app} is installed, but what it does after an install failed", app=app),
            _("if it does not work as it should, uninstall it and install it again, or tell its author"),
        ),
        "@upgrade": (
            _("{app} was changed to the other release, but what it does after that failed", app=app),
            _("if it does not work as it should, run `llmasos rollback {app}`, or tell its author", app=app),
        ),
        "@uninstall": (
            _("{app} is uninstalled, but what it does before that failed", app=app),
            _("there is nothing that you must do"),
        ),
        "@event": (
            _("the permissions of {app} changed, but its hook for that failed", app=app),
            _("if it does not work as it should, tell its author"),
        ),
    }[event]
    return type(error)(_("{stands}; {cure}. It failed with: {error}", stands=stands, cure=cure, error=error.message))

"""Telling an app of the moments of its installation, and a person of a hook that failed.

An app is told after a change is committed, and of its removal before it: so its hook runs as a release that is there,
and nothing that the hook does can undo, hold up for long, or prevent the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from llmasos.errors import LlmasosError
from llmasos.installs.service import Outcome
from llmasos.kernel.invocation import Json, Principal


class Tell(Protocol):
    """Runs the hook of a moment as an invocation of the app; `Runs.tell` is one."""

    async def __call__(self, principal: Principal, app_id: str, moment: str, value: Json) -> object:
        """Run it to its end.

        Raises:
            LlmasosError: How it failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Installed:
    """An installation at one moment: the release that runs, the capabilities it holds, the moments it hears of."""

    version: str
    held: frozenset[str]
    moments: frozenset[str]


Happened: TypeAlias = tuple[str, dict[str, Any]]
"""A moment, such as `@install`, and what its hook is given."""


def happened(outcome: Outcome, before: Installed | None, now: Installed) -> Happened | None:
    """What an app hears of a change to its installation; None where there is nothing that it wants to hear."""
    moment, value = "", dict[str, Any]()
    match outcome:
        case "installed":
            moment = "@install"
        case "upgraded" | "rolled-back":
            moment, value = "@upgrade", {"from_version": before.version if before else ""}
        case "granted" | "revoked":
            held = before.held if before else frozenset[str]()
            payload = {
                "held": sorted(now.held), "added": sorted(now.held - held), "removed": sorted(held - now.held)
            }  # fmt: skip
            moment, value = "@event", {"event": {"name": "grants", "payload": payload}}
        case "uninstalled":
            moment = "@uninstall"
        case "already" | "restored" | "waiting" | "configured":
            pass
    return (moment, value) if moment in now.moments else None


def failure_of(app: str, moment: str, error: LlmasosError) -> LlmasosError:
    """What a person reads of a hook that failed: what stands, why it failed, and what to do."""
    why, why_zh = error.message.rstrip("."), (error.message_zh or error.message).rstrip("。.")
    stands, stands_zh, cure, cure_zh = {
        "@install": (
            f"{app} is installed, but what it does after an install failed",
            f"{app} 已安装，但它安装后的步骤失败了",
            "if it does not work as it should, uninstall it and install it again, or tell its author",
            "如果它工作不正常，请卸载后重新安装，或告知其作者",
        ),
        "@upgrade": (
            f"{app} was changed to the other release, but what it does after that failed",
            f"{app} 已更换版本，但它随后的步骤失败了",
            f"if it does not work as it should, run `llmasos rollback {app}`, or tell its author",
            f"如果它工作不正常，请运行 `llmasos rollback {app}`，或告知其作者",
        ),
        "@uninstall": (
            f"{app} is uninstalled, but what it does before that failed",
            f"{app} 已卸载，但它卸载前的步骤失败了",
            "there is nothing that you must do",
            "你无需做任何事",
        ),
        "@event": (
            f"what {app} may do is changed, but it failed when it was told so",
            f"{app} 的权限已更改，但它收到通知时出错了",
            "if it does not work as it should, tell its author",
            "如果它工作不正常，请告知其作者",
        ),
    }[moment]
    return type(error)(f"{stands} ({why}); {cure}.", zh=f"{stands_zh}（{why_zh}）；{cure_zh}。")

"""Whether an app may use a capability, and what to say when it may not. Pure."""

from __future__ import annotations

from llmasos.errors import Denied, PermissionNotDeclared, PermissionNotGranted
from llmasos.i18n import t
from llmasos.kernel.invocation import InstalledApp
from llmasos_sdk.host import BASELINE_CAPABILITIES

# What an author pastes: the smallest permission of each capability that does something.
_LINES = {
    "model": 'tiers = ["fast"]',
    "storage": "max_bytes = 1048576",
    "http": 'hosts = ["https://api.example.com"]',
    "secrets": 'secrets = [{name = "api_key", host = "https://api.example.com", header = "authorization"}]',
    "apps": 'apps = ["publisher/name"]',
}


def manifest_lines(capability: str) -> str:
    """The lines of `llmapp.toml` that ask for a capability."""
    lines = (
        "[[permissions]]",
        f'capability = "{capability}"',
        _LINES.get(capability, ""),
        'reason.en = "Why it needs it."',
    )
    return "\n".join(line for line in lines if line)


def denial(app: InstalledApp | None, capability: str, locale: str) -> Denied | None:
    """Why `app` may not use `capability`; None where it may. Without an app, it is the user's own right."""
    if app is None or capability in BASELINE_CAPABILITIES or capability in app.grants:
        return None
    if capability in app.declared:
        return PermissionNotGranted(
            t(
                locale,
                f"{app.id} declares {capability}, but this installation does not grant it. "
                f"See `llmasos grants show {app.id}`; install it again to consent.",
                f"{app.id} 声明了 {capability}，但此安装未授予该权限。"
                f"查看 `llmasos grants show {app.id}`；重新安装即可授权。",
            )
        )
    return PermissionNotDeclared(
        t(
            locale,
            f"{app.id} used {capability}, which its manifest does not declare. Add to llmapp.toml:",
            f"{app.id} 使用了清单中未声明的 {capability}。请在 llmapp.toml 中添加：",
        )
        + "\n"
        + manifest_lines(capability)
    )

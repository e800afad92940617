"""Plans and consent as JSON."""

from __future__ import annotations

from typing import Any

from llmasos.installs.consent import ConsentRequest
from llmasos.installs.plan import InstallPlan
from llmasos.installs.wording import describe, describe_limits, describe_risk


def plan_document(plan: InstallPlan, locale: str) -> list[dict[str, Any]]:
    """The steps of a plan, in order of execution."""
    return [
        {
            "app": step.app_id,
            "version": step.bundle.manifest.version,
            "from_version": step.request.from_version,
            "change": step.kind,
            "digest": step.bundle.digest,
            "consent": consent_document(step.request, locale),
        }
        for step in plan.steps
    ]


def consent_document(request: ConsentRequest, locale: str) -> dict[str, Any]:
    """A consent request: the values, and the sentences that a screen shows."""
    manifest = request.manifest
    return {
        "needed": request.is_needed,
        "level": request.level,
        "permissions": [
            {
                "capability": each.capability,
                "status": each.status,
                "optional": each.permission.optional,
                "scope": each.permission.model_dump(mode="json"),
                "text": describe(each.permission, locale),
            }
            for each in request.permissions
        ],
        "dropped": [permission.capability for permission in request.dropped],
        "limits": manifest.limits.model_dump(mode="json"),
        "limits_text": list(describe_limits(manifest.limits, locale)),
        "raised_limits": list(request.raised_limits),
        "risks": [
            {
                "code": risk.code,
                "level": risk.level,
                "capabilities": list(risk.capabilities),
                "servers": list(risk.servers),
                "text": describe_risk(risk, locale),
            }
            for risk in request.risks
        ],
    }

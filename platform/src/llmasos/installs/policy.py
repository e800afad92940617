"""The policy of a workspace: who may install, what an administrator must approve, and what upgrades by itself.

One check holds it for every caller, and for dependencies as for what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from packaging.version import Version
from pydantic import Field
from sqlmodel import Session

from llmasos.bundles.manifest import Frozen
from llmasos.database.engine import WriteSession
from llmasos.errors import Denied
from llmasos.i18n import Message, _, listing
from llmasos.installs.consent import ConsentRequest
from llmasos.installs.plan import InstallPlan, InstallStep
from llmasos.installs.risk import RISK_LEVELS, RiskLevel
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.tables import WorkspacePolicy
from llmasos.kernel.audit import Line, record
from llmasos.kernel.invocation import Principal

Upgrades: TypeAlias = Literal["nothing", "patches", "all"]
CapabilityName: TypeAlias = Literal["model", "storage", "http", "secrets", "apps"]


class PolicyForbids(Denied):
    """The policy of this workspace lets only administrators change what is installed: ask one of them."""

    code = "policy-forbids"


class ApprovalNeeded(Denied):
    """The policy of this workspace wants an administrator to approve this; it waits as a request."""

    code = "approval-needed"


class Policy(Frozen):
    """The policy of a workspace. Administrators are held to none of it but `upgrades`."""

    who_installs: Literal["members", "administrators"] = "members"
    """Who may change what is installed. Whoever may not, may still revoke and narrow grants."""
    approve_capabilities: Annotated[tuple[CapabilityName, ...], Field(max_length=16, strict=False)] = ()
    """What asks for one of these waits for an administrator's approval."""
    approve_sources: Annotated[tuple[str, ...], Field(max_length=64, strict=False)] = ()
    """So does what comes from one of these sources; `local` is this host's own catalog."""
    approve_risk: RiskLevel | None = None
    """So does what has a risk of this level or a worse one."""
    upgrades: Upgrades = "nothing"
    """What upgrades by itself: only what asks for nothing new, and `patches` only if major and minor stay."""


@dataclass(frozen=True, slots=True)
class Change:
    """A plan, and the decisions on it."""

    plan: InstallPlan
    answers: ConsentAnswers

    @property
    def waits(self) -> bool:
        """Whether it changes nothing yet: the new release waits for consent beside the one that runs."""
        return self.plan.needs_consent and not self.answers.agreed


def policy_of(session: Session, workspace: str) -> Policy:
    """The policy of a workspace; one that never chose has the defaults."""
    row = session.get(WorkspacePolicy, workspace)
    return Policy() if row is None else Policy.model_validate(row.policy)


def set_policy(session: WriteSession, by: Principal, policy: Policy) -> None:
    """Choose the policy of a workspace. What is installed stays as it is."""
    chosen = policy.model_dump(mode="json")
    row = session.get(WorkspacePolicy, by.workspace) or WorkspacePolicy(workspace_id=by.workspace, policy=chosen)
    row.policy = chosen
    session.add(row)
    record(session, Line(by.workspace, by.user, "policy.set", detail=chosen))


def check_may_change(policy: Policy, administrator: bool) -> None:
    """Refuse whoever may not change what is installed.

    Raises:
        PolicyForbids: Only administrators may.
    """
    if policy.who_installs == "administrators" and not administrator:
        raise PolicyForbids


def check(policy: Policy, change: Change, administrator: bool) -> None:
    """Refuse a change that the policy does not let its user make.

    Raises:
        PolicyForbids: Only administrators may change what is installed.
        ApprovalNeeded: An administrator must approve it; the message says why.
    """
    check_may_change(policy, administrator)
    if administrator or change.waits:
        return
    reasons = [reason for step in change.plan.steps for reason in _reasons(policy, step, change.answers)]
    if reasons:
        raise ApprovalNeeded(
            _(
                "An administrator must approve this first, by the policy of the workspace: {reasons}. It waits as a "
                "request.",
                reasons=listing(reasons, "; "),
            )
        )


def upgrades_by_itself(policy: Policy, plan: InstallPlan, before: str) -> bool:
    """Whether a plan to upgrade an app from the version `before` needs nobody."""
    if policy.upgrades == "nothing" or not plan.steps or plan.needs_consent:
        return False
    old, new = Version(before), Version(plan.version)
    if new.is_prerelease and not old.is_prerelease:
        return False
    same = (old.epoch, old.major, old.minor) == (new.epoch, new.major, new.minor)
    return new > old and (policy.upgrades == "all" or same)


def _reasons(policy: Policy, step: InstallStep, answers: ConsentAnswers) -> list[Message]:
    """Why an administrator must approve a step."""
    request, app = step.request, step.app_id
    if not request.is_needed:
        return []
    asked = request.asked - answers.declined.get(app, frozenset())
    reasons = [
        _("{app} asks for {capability}", app=app, capability=name)
        for name in sorted(asked & frozenset(policy.approve_capabilities))
    ]
    if step.kind == "install" and step.source in policy.approve_sources:
        reasons.append(_("{app} comes from {source}", app=app, source=step.source))
    if policy.approve_risk is not None and _is_as_bad(request, policy.approve_risk):
        reasons.append(_("{app} has a risk of the level {level}", app=app, level=request.level or ""))
    return reasons


def _is_as_bad(request: ConsentRequest, level: RiskLevel) -> bool:
    return request.level is not None and RISK_LEVELS.index(request.level) <= RISK_LEVELS.index(level)

"""The checks before a release is offered. Each check passes, fails, or cannot run, which quarantines the release."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from llmasos.bundles.actions import parse_actions
from llmasos.bundles.imports import check_imports
from llmasos.bundles.reader import Bundle
from llmasos.errors import ComponentRejected, DiskFull, LlmasosError, Unavailable
from llmasos.i18n import _, listing
from llmasos.installs.risk import Risk, risks_of
from llmasos.plugins import Plugins
from llmasos.runtimes.runtime import Program, Runtime

CheckResult: TypeAlias = Literal["passed", "failed", "could not run"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one release. `detail` says what failed or why it could not run."""

    name: Literal["bundle", "imports", "actions", "plugins"]
    result: CheckResult
    detail: str = ""
    """A message, or a plugin's words."""


@dataclass(frozen=True, slots=True)
class Report:
    """The results of the checks."""

    checks: tuple[Check, ...]
    imports: tuple[str, ...]
    """What the binary imports, by WIT name; empty for a native app."""
    risks: tuple[Risk, ...]

    def of(self, result: CheckResult) -> list[Check]:
        """The checks with this result."""
        return [check for check in self.checks if check.result == result]

    @property
    def state(self) -> str:
        """The state of the release, if nothing failed."""
        return "quarantined" if self.of("could not run") else "available"

    @property
    def reason(self) -> str:
        """Why it is quarantined; empty if it is not."""
        said = [
            _("{check} could not be checked: {detail}", check=check.name, detail=check.detail)
            for check in self.of("could not run")
        ]
        return _("{reasons}", reasons=listing(said, "; ")) if said else ""


async def check_release(
    bundle: Bundle,
    runtime_of: Callable[[str], Runtime],
    plugins: Plugins | None = None,
    *,
    checked_imports: tuple[str, ...] | None = None,
) -> Report:
    """Check in runners that a bundle's code is what the bundle says, and call the operator's plugins.

    Args:
        bundle: Read by the strict reader, so its manifest and its files are sound.
        runtime_of: Returns the runtime of a kind.
        plugins: The operator's; None calls none.
        checked_imports: The binary's imports, if they and the actions were checked before; None checks them.

    Raises:
        ManifestRejected: No runtime here runs apps of its kind.
    """
    runtime_of(bundle.manifest.runtime.kind)
    risks = risks_of(bundle.manifest.permissions, bundle.manifest.limits)
    if checked_imports is None:
        imports, checks = await _check_code(bundle, runtime_of)
    else:
        imports, checks = checked_imports, [Check("bundle", "passed")]
    if plugins is not None and plugins.implements("check_release"):
        checks.append(await asyncio.to_thread(_check_plugins, bundle, plugins))
    return Report(tuple(checks), imports, risks)


async def _check_code(bundle: Bundle, runtime_of: Callable[[str], Runtime]) -> tuple[tuple[str, ...], list[Check]]:
    with tempfile.TemporaryDirectory(prefix="llmasos-check-") as folder:
        code = write_code(bundle, Path(folder))
        imports, imports_check = await _check_imports(bundle, code, runtime_of)
        checks = [Check("bundle", "passed"), imports_check]
        if imports_check.result == "passed":  # a binary with undeclared imports is not started
            checks.append(await _check_actions(bundle, code, runtime_of))
    return imports, checks


def write_code(bundle: Bundle, folder: Path) -> Path:
    """Write the code that a runtime prepares: the component's file, or the folder of a wheel and its lock."""
    for name, content in bundle.code.items():
        (folder / name).write_bytes(content)
    return folder / "app.wasm" if bundle.component is not None else folder


async def _check_imports(
    bundle: Bundle, code: Path, runtime_of: Callable[[str], Runtime]
) -> tuple[tuple[str, ...], Check]:
    manifest = bundle.manifest
    if bundle.component is None:
        told = _("a native app reaches the host by the kernel alone")
        return (), Check("imports", "passed", told)
    try:
        found = await runtime_of(manifest.runtime.kind).inspect(code)
    except DiskFull:
        raise
    except Unavailable as error:
        return (), Check("imports", "could not run", error.message)
    except LlmasosError as error:
        return (), Check("imports", "failed", error.message)
    try:
        check_imports(found.imports, manifest.capabilities)
    except ComponentRejected as error:
        return found.imports, Check("imports", "failed", error.message)
    return found.imports, Check("imports", "passed")


async def _check_actions(bundle: Bundle, code: Path, runtime_of: Callable[[str], Runtime]) -> Check:
    manifest = bundle.manifest
    program = Program(
        kind=manifest.runtime.kind,
        digest=bundle.component_digest,
        capabilities=manifest.capabilities,
        installation_id="publishing",
    )
    try:
        runtime = runtime_of(manifest.runtime.kind)
        await runtime.prepare(program, code)
        described = parse_actions(await runtime.describe(program))
    except DiskFull:  # says nothing about the release, so the release is not quarantined
        raise
    except Unavailable as error:
        return Check("actions", "could not run", error.message)
    except LlmasosError as error:
        told = _("the app does not start in the sandbox: {error}", error=error.message)
        return Check("actions", "failed", told)
    if _canonical(described.entries) != _canonical(bundle.listed_json):
        names = ", ".join(str(each["name"]) for each in described.entries)
        return Check(
            "actions",
            "failed",
            _("actions.json is not what the app describes ({names}): build it again with `llmasos build`", names=names),
        )
    return Check("actions", "passed")


def _check_plugins(bundle: Bundle, plugins: Plugins) -> Check:
    try:
        findings = plugins.check_release(bundle.manifest, bundle.files)
    except Unavailable as error:
        return Check("plugins", "could not run", error.message)
    except LlmasosError as error:
        return Check("plugins", "failed", error.message)
    told = "; ".join(finding.message for finding in findings)
    # A plugin writes its findings in the operator's language.
    return Check("plugins", "failed" if any(finding.blocks for finding in findings) else "passed", told)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def raise_failures(bundle: Bundle, report: Report) -> None:
    """Raise if a check failed.

    Raises:
        ComponentRejected: The message lists every failed check, and the cure.
    """
    failed = report.of("failed")
    if failed:
        what = listing([check.detail for check in failed], "; ")
        raise ComponentRejected(
            _(
                "{manifest} {version} was not published: {what}",
                manifest=bundle.manifest.id,
                version=bundle.manifest.version,
                what=what,
            ),
        )
